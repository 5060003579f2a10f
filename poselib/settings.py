"""What a model is made of. No torch here: settings are read before anything heavy is imported."""

from dataclasses import dataclass
from typing import Final, Literal

Backbone = Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
CellOrigin = Literal["center", "corner"]
Lens = Literal["pinhole", "brown", "undistorted"]
"""How targets and back-projection treat the lens: ignored, modelled, or removed from the pictures on sharding."""
SoftArgmax = Literal["auto", "reference", "flat", "recompute", "chunked"]

STRIDE: Final = 32
"""Crop pixels per cell of the backbone's last feature map."""


@dataclass(frozen=True)
class ModelSettings:
    """The network, and the volume that its coordinates live in.

    Attributes:
        backbone: ImageNet ResNet (V1) with torchvision's state-dict keys.
        width: channels behind the stem; 64 is the published ResNet, less makes every stage narrower.
        crop_width: input width in px, a multiple of 32.
        crop_height: input height in px, a multiple of 32.
        depth: cells of the heat map along z.
        depth_range_mm: what the volume spans along z, centred on the pelvis.
        ppm_bins: cells per side of each level of the pyramid pooling module; empty for no pyramid.
        ppm_channels: output channels of the whole pyramid; 0 takes the backbone's.
        decoder_channels: channels of each transposed convolution.
        decoder_layers: how many there are; each doubles the resolution.
        cell_origin: `center` puts cell i of n at (i + 0.5) / n - 0.5, `corner` at i / n - 0.5.
        soft_argmax: which implementation computes the expectation; all give the same numbers.
    """

    backbone: Backbone = "resnet50"
    width: int = 64
    crop_width: int = 256
    crop_height: int = 256
    depth: int = 64
    depth_range_mm: float = 2000.0
    ppm_bins: tuple[int, ...] = (1, 2, 3, 6)
    ppm_channels: int = 0
    decoder_channels: int = 256
    decoder_layers: int = 3
    cell_origin: CellOrigin = "center"
    soft_argmax: SoftArgmax = "auto"

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        for name in ("crop_width", "crop_height"):
            value = getattr(self, name)
            if value < STRIDE or value % STRIDE:
                raise ValueError(f"{name} must be a positive multiple of {STRIDE}, not {value}")
        for name in ("width", "depth", "decoder_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.decoder_layers <= 5:
            raise ValueError(f"decoder_layers must lie in 0..5, not {self.decoder_layers}")
        if self.depth_range_mm <= 0:
            raise ValueError(f"depth_range_mm must be above 0, not {self.depth_range_mm}")
        if any(bins < 1 for bins in self.ppm_bins) or len(set(self.ppm_bins)) != len(self.ppm_bins):
            raise ValueError(f"ppm_bins must be different whole numbers of at least 1, not {list(self.ppm_bins)}")
        if self.ppm_bins and 0 < self.ppm_channels < len(self.ppm_bins):
            raise ValueError(f"ppm_channels must be 0 or at least {len(self.ppm_bins)}, one per bin")

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
