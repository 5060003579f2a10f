"""What a model is made of. No torch here: settings are read before anything heavy is imported."""

from dataclasses import dataclass
from typing import Final, Literal

Backbone = Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "botnet50"]
CellOrigin = Literal["center", "corner"]
Lens = Literal["pinhole", "brown", "undistorted"]
"""How targets and back-projection treat the lens: ignored, modelled, or removed from the pictures on sharding."""
Head = Literal["integral", "probabilistic", "regression"]
"""What answers: the heat maps' expectation, draws from the heat maps, or one linear layer without heat maps."""
Inference = Literal["integral", "mode"]
"""How a heat map becomes a joint at inference: its expectation, or its highest cell."""
SoftArgmax = Literal["auto", "reference", "flat", "recompute", "chunked"]

STRIDE: Final = 32
"""Crop pixels per cell of the backbone's last feature map."""


def check_at_least(settings: object, low: int, *names: str) -> None:
    """Raise ValueError, with the setting and its valid range, where one of the named settings is below `low`."""
    for name in names:
        if getattr(settings, name) < low:
            raise ValueError(f"{name} must be at least {low}, not {getattr(settings, name)}")


@dataclass(frozen=True)
class ModelSettings:
    """The network, and the volume that its coordinates live in.

    Attributes:
        backbone: ImageNet ResNet (V1) with torchvision's state-dict keys, or BoTNet-50, whose last stage attends.
        width: channels behind the stem; 64 is the published ResNet, less makes every stage narrower.
        crop_width: input width in px, a multiple of 32.
        crop_height: input height in px, a multiple of 32.
        depth: cells of the heat map along z.
        depth_range_mm: what the volume spans along z, centred on the pelvis.
        ppm_bins: cells per side of each level of the pyramid pooling module; null for no pyramid.
        ppm_channels: output channels of the whole pyramid; 0 takes the backbone's.
        decoder_channels: channels of each transposed convolution.
        decoder_layers: how many there are; each doubles the resolution.
        cell_origin: `center` puts cell i of n at (i + 0.5) / n - 0.5, `corner` at i / n - 0.5.
        soft_argmax: which implementation computes the expectation; all give the same numbers.
        head: `probabilistic` trains on the expected error of cells drawn from the heat maps, `regression` is the
            control without heat maps.
        inference: how heat maps are read outside training.
        temperature: heat maps are softmax(scores / temperature).
    """

    backbone: Backbone = "resnet50"
    width: int = 64
    crop_width: int = 256
    crop_height: int = 256
    depth: int = 64
    depth_range_mm: float = 2000.0
    ppm_bins: tuple[int, ...] | None = (1, 2, 3, 6)
    ppm_channels: int = 0
    decoder_channels: int = 256
    decoder_layers: int = 3
    cell_origin: CellOrigin = "center"
    soft_argmax: SoftArgmax = "auto"
    head: Head = "integral"
    inference: Inference = "integral"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        for name in ("crop_width", "crop_height"):
            value = getattr(self, name)
            if value < STRIDE or value % STRIDE:
                raise ValueError(f"{name} must be a positive multiple of {STRIDE}, not {value}")
        check_at_least(self, 1, "width", "depth", "decoder_channels")
        if not 0 <= self.decoder_layers <= 5:
            raise ValueError(f"decoder_layers must lie in 0..5, not {self.decoder_layers}")
        for name in ("depth_range_mm", "temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.head == "regression" and self.inference == "mode":
            raise ValueError("inference must be integral for the regression head: it has no heat maps")
        self._check_bins()

    def _check_bins(self) -> None:
        """Bins are different, positive, and no more than the channels they share."""
        check_at_least(self, 0, "ppm_channels")
        bins, channels = self.ppm_bins, self.ppm_channels or self.backbone_channels
        if bins is None:
            return
        if not bins or any(count < 1 for count in bins) or len(set(bins)) != len(bins):
            raise ValueError(
                "ppm_bins must be one or more different whole numbers of at least 1, or null for no pyramid, not"
                f" {list(bins)}"
            )
        if len(bins) > channels:
            raise ValueError(
                f"ppm_bins must be at most {channels} bins, one per channel of the pyramid, not {len(bins)};"
                " ppm_channels sets how many it has"
            )

    @property
    def backbone_channels(self) -> int:
        """Channels of the backbone's last feature map."""
        return self.width * 8 * (1 if self.backbone in ("resnet10", "resnet18", "resnet34") else 4)

    @property
    def notices(self) -> list[str]:
        """What is allowed but may not be meant, one line each."""
        rows, columns = self.crop_height // STRIDE, self.crop_width // STRIDE
        large = [count for count in self.ppm_bins or () if count > min(rows, columns)]
        if not large:
            return []
        return [
            f"ppm_bins {', '.join(map(str, large))}: more cells than the feature map of {columns} x {rows} has;"
            " pooling repeats cells"
        ]

    @property
    def heatmap_width(self) -> int:
        """Cells of the heat map along x."""
        return self.crop_width // STRIDE * 2**self.decoder_layers

    @property
    def heatmap_height(self) -> int:
        """Cells of the heat map along y."""
        return self.crop_height // STRIDE * 2**self.decoder_layers

    @property
    def aspect(self) -> float:
        """Crop width over crop height."""
        return self.crop_width / self.crop_height


@dataclass(frozen=True)
class LossSettings:
    """What training minimises: the sum of an L1 error of coordinates and an L2 error of heat maps, each weighted.

    Attributes:
        l1: weight of the coordinates' error. Of the probabilistic head it is the expected error of drawn cells.
        heatmap: weight of the squared distance between heat map and Gaussian, both summing to 1.
        sigma: the Gaussian's standard deviation in cells.
        draws: cells drawn per joint and step, probabilistic head; even, at least 4: each is judged by the others.
        draws_averaged: cells whose mean place is the answer that the expected error is of, up to draws / 2 + 1. 1 is
            the error of single cells, under which heat maps fall onto one early and learn far worse.
        entropy: weight of the heat maps' entropy against the expected error, probabilistic head, volume units; 0 lets
            heat maps narrow freely.
    """

    l1: float = 1.0
    heatmap: float = 0.0
    sigma: float = 2.0
    draws: int = 256
    draws_averaged: int = 128
    entropy: float = 0.02

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        for name in ("l1", "heatmap", "entropy"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if self.l1 == self.heatmap == 0:
            raise ValueError("l1 and heatmap must not both be 0: nothing would be trained")
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"sigma must be above 0 cells, not {self.sigma}")
        check_at_least(self, 1, "draws_averaged")
        if self.draws < 4 or self.draws % 2:
            raise ValueError(f"draws must be even and at least 4, not {self.draws}")
        if self.draws_averaged > self.draws // 2 + 1:
            limit = f"{self.draws // 2 + 1} with draws = {self.draws}"
            raise ValueError(f"draws_averaged must be at most {limit}, not {self.draws_averaged}")

    def check(self, model: ModelSettings) -> None:
        """Whether the model has what this loss asks of it; a ValueError names the setting if not."""
        if self.heatmap and model.head == "regression":
            raise ValueError("heatmap must be 0 for the regression head: it has no heat maps")
        if self.l1 == 0 and model.head == "probabilistic":
            raise ValueError("l1 must be above 0 for the probabilistic head: it is the weight of its draws")
