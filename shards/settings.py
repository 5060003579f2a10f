"""What a shard set is built from and how. No torch here."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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


@dataclass(frozen=True)
class VerifySettings:
    """Re-read a shard set.

    Attributes:
        folder: of the shard set, or its URL.
        storage: how it is reached.
    """

    folder: str
    storage: StorageSettings = field(default_factory=StorageSettings)
