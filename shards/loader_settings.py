"""How batches are read, cut and augmented. No torch here."""

from dataclasses import dataclass, field
from typing import Final, Literal

from shards.storage_settings import StorageSettings

MOST_OCCLUDERS: Final = 8
"""Layers of the picture graph, and places among a sample's random numbers."""


@dataclass(frozen=True)
class AugmentSettings:
    """What happens to training samples of one source; each kind happens with its own probability.

    Attributes:
        flip: probability of mirroring.
        color: each channel is multiplied by a draw from 1 - color to 1 + color, then clamped.
        color_p: probability of recolouring at all.
        zoom: the person is scaled by a draw from 1 - zoom to 1 + zoom.
        zoom_p: probability of zooming at all.
        rotation_deg: the crop is turned about its centre by a draw from -rotation_deg to rotation_deg.
        rotation: probability of turning at all.
        occluders: probability of pasting objects over the crop; they come from the run's occluder bank.
        occluder_count: fewest and most objects on such a crop, at most 8.
        occluder_size: smallest and largest size of an object; at 1 in a crop whose shorter side is 256 px it has the
            pixels it was stored with.
    """

    flip: float = 0.5
    color: float = 0.2
    color_p: float = 1.0
    zoom: float = 0.0
    zoom_p: float = 1.0
    rotation_deg: float = 0.0
    rotation: float = 0.6
    occluders: float = 0.0
    occluder_count: tuple[int, int] = (1, MOST_OCCLUDERS)
    occluder_size: tuple[float, float] = (0.2, 1.0)

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        for name, high in (
            *(("flip", 1.0), ("color", 1.0), ("color_p", 1.0), ("zoom", 0.9), ("zoom_p", 1.0)),
            *(("rotation_deg", 180.0), ("rotation", 1.0), ("occluders", 1.0)),
        ):
            if not 0 <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in 0..{high:g}, not {getattr(self, name)}")
        fewest, most = self.occluder_count
        if not 1 <= fewest <= most <= MOST_OCCLUDERS:
            raise ValueError(f"occluder_count must rise within 1..{MOST_OCCLUDERS}, not {list(self.occluder_count)}")
        smallest, largest = self.occluder_size
        if not 0 < smallest <= largest <= 4:
            raise ValueError(f"occluder_size must rise within 0..4, above 0, not {list(self.occluder_size)}")


PRESETS: Final[dict[str, AugmentSettings]] = {
    "none": AugmentSettings(flip=0.0, color=0.0),
    "report": AugmentSettings(flip=0.5, color=0.2, occluders=0.75),
    "sun": AugmentSettings(flip=0.5, color=0.2, zoom=0.25, rotation_deg=30.0, rotation=0.6),
    "metrabs": AugmentSettings(
        flip=0.5, color=0.2, zoom=0.25, rotation_deg=20.0, rotation=1.0, occluders=0.25, occluder_count=(1, 6)
    ),
}
"""Augmentation as published; `augment/NAME.yaml` among the configs sets the same for Human3.6M.

report: flip, colour and VOC2012 objects, as its final training.
sun: defaults of the code of Sun et al., "Integral Human Pose Regression", 2018 (common/utility/augment.py). There, zoom
    and angle come from clipped normal distributions (standard deviations 0.25 and 30 degrees, clipped at 1 and 2 of
    them), here from uniform ones; the zoom divides there and multiplies here. It pastes no objects.
metrabs: defaults of the code of Sarandi et al., "MeTRAbs", 2021 (metrabs_tf/init.py and augmentation/). Half of its
    occlusion is objects; the other half, random erasing, is left out, and so are shifts by up to 10 % of the box,
    backgrounds exchanged behind people, partial boxes, and hue, saturation and contrast: colour gains stand for them.
"""


@dataclass(frozen=True)
class CropSettings:
    """How a crop and its targets are made from a stored sample.

    Attributes:
        aspect: a crop of another aspect than the box widens the box (`keep`) or stretches it (`stretch`).
        z_scaled_with_zoom: z targets are divided by the zoom of the augmentation.
        mask_outside: joints outside the crop or the depth range do not count.
        allow_border: accept crops that look beyond the stored picture; the default refuses them.
    """

    aspect: Literal["keep", "stretch"] = "keep"
    z_scaled_with_zoom: bool = True
    mask_outside: bool = False
    allow_border: bool = False


@dataclass(frozen=True)
class LoaderSettings:
    """How batches are read and decoded.

    Attributes:
        device: where DALI decodes and warps; `auto` follows the training device.
        threads: DALI's CPU threads per rank; 0 shares the machine's cores out.
        prefetch: batches made ahead, per rank.
        hw_decoder_load: share of the pictures that go to the GPU's JPEG engines, where it has them; the others are
            decoded by CUDA.
        damaged: a damaged sample stops the run (`error`), or the next sound one of its micro-batch takes its place,
            which is counted and logged (`skip`).
        storage: how shard sets behind URLs and on slow disks are reached.
    """

    device: Literal["auto", "cpu", "gpu"] = "auto"
    threads: int = 0
    prefetch: int = 2
    hw_decoder_load: float = 0.65
    damaged: Literal["error", "skip"] = "error"
    storage: StorageSettings = field(default_factory=StorageSettings)

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if self.threads < 0:
            raise ValueError(f"threads must be at least 0, not {self.threads}")
        if not 1 <= self.prefetch <= 64:
            raise ValueError(f"prefetch must lie in 1..64, not {self.prefetch}")
        if not 0 <= self.hw_decoder_load <= 1:
            raise ValueError(f"hw_decoder_load must lie in 0..1, not {self.hw_decoder_load}")
