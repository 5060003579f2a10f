"""What a shard set is built from and how. No torch here."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from poselib.settings import Lens, check_at_least
from shards.storage_settings import StorageSettings

Box = Literal["root2000", "tight"]
SourceName = Literal["auto", "h36m", "mpii", "voc"]
Layout = Literal["auto", "h36m", "h36m_mks0601", "h36m_eth", "h36m_kf", "mpii", "mpii_hrnet", "voc"]
MpiiMap = Literal["eth", "sun", "limbs"]


@dataclass(frozen=True)
class BuildSettings:
    """Raw data to a shard set.

    Attributes:
        raw: folder of the raw data.
        out: folder of the shard set; made if missing, resumed if half built.
        source: what `raw` holds; `auto` looks.
        layout: how it is laid out; `auto` looks. `h36m`, `mpii` and `voc` are the official ones.
        subjects: Human3.6M subjects to take, such as S1; empty takes all.
        box: the nominal person box. `root2000`: 2000 x 2000 mm at the pelvis' depth. `tight`: joints, x 1.25.
        cover_width: width of the stored picture in nominal boxes; 1 stores the box alone.
        cover_height: height of the stored picture in nominal boxes.
        stored_px: longer side of the nominal box in the stored picture; smaller boxes are never enlarged.
        quality: JPEG quality, 1 to 100.
        lens: how joints are projected, see `poselib.settings.Lens`.
        mpii_map: which MPII joints supervise Human3.6M's.
        mpii_val_list: MPII pictures that validate: a text file of picture names, one a line, or HRNet's `valid.json`.
            By default `annot/valid.json` where it lies below `raw`, else one picture in ten by a hash of its name.
        faulty_videos: Human3.6M videos known to disagree with their poses (S11 Directions, camera 54138969).
        shifted_poses: Human3.6M poses known to be 200 mm off along world X (S9 Greeting, SittingDown 1, Waiting 1):
            `correct` moves them back, `skip` leaves these recordings out, `keep` takes them as they are.
        every: keep each n-th frame of a video, counted from its first.
        every_test: keep each n-th frame as well, for evaluation; 0 adds none.
        workers: processes; 0 takes every core.
        strict: stop at the first damaged sample, where the default skips and lists it.
        share: `3/16` makes the third of sixteen shares of the parts, beside builders of others on any machine;
            whoever makes the last part finishes the set.
    """

    raw: Path
    out: Path
    source: SourceName = "auto"
    layout: Layout = "auto"
    subjects: tuple[str, ...] = ()
    box: Box = "root2000"
    cover_width: float = 1.0
    cover_height: float = 1.0
    stored_px: int = 384
    quality: int = 90
    lens: Lens = "pinhole"
    mpii_map: MpiiMap = "eth"
    mpii_val_list: Path | None = None
    faulty_videos: Literal["skip", "keep"] = "skip"
    shifted_poses: Literal["correct", "skip", "keep"] = "correct"
    every: int = 5
    every_test: int = 64
    workers: int = 0
    strict: bool = False
    share: str = ""

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if self.share and not _is_share(self.share):
            raise ValueError(f"share must be like 3/16, from 1/16 to 16/16, not {self.share}")
        for name in ("cover_width", "cover_height"):
            value = getattr(self, name)
            if not (1.0 <= value <= 4.0):
                raise ValueError(f"{name} must lie in 1..4, not {value}")
        for name, low, high in (("stored_px", 16, 4096), ("quality", 1, 100), ("every", 1, math.inf)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in {low}..{high}, not {value}")
        check_at_least(self, 0, "every_test", "workers")


def _is_share(text: str) -> bool:
    number, _, of = text.partition("/")
    return number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)


@dataclass(frozen=True)
class CheckSettings:
    """Look through raw data before anything is built.

    Attributes:
        raw: folder of the raw data.
        sheet: picture that is written: people of all recordings with their skeletons drawn; .jpg or .png.
        pictures: how many people are read for it, spread over the recordings.
        source: what `raw` holds; `auto` looks.
        layout: how it is laid out; `auto` looks.
        subjects: Human3.6M subjects to look at; empty takes all.
        box: the nominal person box, as a build would take it.
        lens: how joints are projected, as a build would.
        mpii_map: which MPII joints supervise Human3.6M's.
        mpii_val_list: MPII pictures that validate: a text file of picture names, one a line, or HRNet's `valid.json`.
            By default `annot/valid.json` where it lies below `raw`, else one picture in ten by a hash of its name.
        every: keep each n-th frame of a video, as a build would.
        every_test: keep each n-th frame as well; 0 adds none.
    """

    raw: Path
    sheet: Path = Path("check.jpg")
    pictures: int = 24
    source: SourceName = "auto"
    layout: Layout = "auto"
    subjects: tuple[str, ...] = ()
    box: Box = "root2000"
    lens: Lens = "pinhole"
    mpii_map: MpiiMap = "eth"
    mpii_val_list: Path | None = None
    every: int = 5
    every_test: int = 64

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if self.sheet.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            raise ValueError(f"sheet must end in .jpg or .png, not {self.sheet.name}")
        for name, low, high in (("pictures", 1, 1000), ("every", 1, math.inf), ("every_test", 0, math.inf)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in {low}..{high}, not {getattr(self, name)}")


@dataclass(frozen=True)
class StudioSettings:
    """The embedded, synthetic data, written in the raw layouts of the real sets.

    Attributes:
        out: folder to write `h36m/`, `mpii/` and `voc/` into.
        seed: everything follows from it.
        frames: frames of each Human3.6M video.
        frame_px: side of a Human3.6M frame; 1000 is the real one.
        subjects: Human3.6M subjects.
        actions: Human3.6M actions, of the 15 names; empty takes all.
        cameras: how many of the four cameras film, 1 to 4.
        mpii_pictures: how many MPII-like pictures.
        voc_pictures: how many VOC-like pictures of objects.
        lens_distortion: whether the cameras' lenses distort.
        workers: processes; 0 takes every core.
    """

    out: Path
    seed: int = 0
    frames: int = 24
    frame_px: int = 1000
    subjects: tuple[str, ...] = field(default=("S1", "S5", "S6", "S7", "S8", "S9", "S11"))
    actions: tuple[str, ...] = ()
    cameras: int = 4
    mpii_pictures: int = 400
    voc_pictures: int = 40
    lens_distortion: bool = True
    workers: int = 0

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if not 1 <= self.cameras <= 4:
            raise ValueError(f"cameras must lie in 1..4, not {self.cameras}")
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, not {self.frames}")
        if not 128 <= self.frame_px <= 1000:
            raise ValueError(f"frame_px must lie in 128..1000, not {self.frame_px}")
        check_at_least(self, 0, "seed", "mpii_pictures", "voc_pictures", "workers")


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


@dataclass(frozen=True)
class VerifySettings:
    """Re-read a shard set.

    Attributes:
        folder: of the shard set, or its URL.
        storage: how it is reached.
    """

    folder: str
    storage: StorageSettings = field(default_factory=StorageSettings)
