"""What `pose predict` and `pose export` are asked. No torch here."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from poselib.settings import check_at_least

Aspect = Literal["run", "keep", "stretch"]
Weights = Literal["best", "last"]
Device = Literal["auto", "cpu", "cuda"]
MOST_PIXELS: Final = 178_000_000
"""Above this Pillow itself takes a picture for a decompression bomb."""


@dataclass(frozen=True)
class CameraSettings:
    """What is assumed of cameras and people where nothing tells.

    Attributes:
        focal_px: focal length in pixels of the picture; 0 takes the one in the picture's EXIF data, or else `fov_deg`.
        fov_deg: angle of view along the longer side, for pictures that do not say their focal length.
        root_depth_mm: depth of the pelvis; 0 estimates it from the lengths of arms and legs.
        stature_mm: height of the person in that estimate; the depth is off in proportion to it.
    """

    focal_px: float = 0.0
    fov_deg: float = 55.0
    root_depth_mm: float = 0.0
    stature_mm: float = 1700.0

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        for name in ("focal_px", "root_depth_mm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if not 1 <= self.fov_deg <= 170:
            raise ValueError(f"fov_deg must lie in 1..170, not {self.fov_deg}")
        if not 300 <= self.stature_mm <= 3000:
            raise ValueError(f"stature_mm must lie in 300..3000, not {self.stature_mm}")


@dataclass(frozen=True)
class PredictSettings(CameraSettings):
    """Poses of people in pictures and videos, by a trained run.

    Attributes:
        inputs: pictures, videos, folders of them; `-` reads one picture from the standard input.
        run: folder of the run, or its .safetensors file.
        out: folder for `poses.json`, overlays and annotated videos.
        box: one person's box x, y, width, height in px, for every picture; null takes `boxes`, `detector`, or the whole
            picture.
        boxes: file of boxes, .json or .csv; see docs/predict.md.
        detector: finds people where `box` and `boxes` say nothing: `torchvision`, where that is installed.
        detector_weights: the detector's weights, a file; see docs/predict.md.
        box_scale: how much larger than a person's box the crop is; 1 where boxes are those of a shard set.
        aspect: how crops of another aspect are cut: as the run did, or otherwise.
        weights: `best` on validation, where there was one, or `last`.
        flip_test: average with the mirrored crop's prediction.
        overlays: write each picture with its skeletons.
        video: write each video with its skeletons.
        every: predict each n-th frame of a video.
        max_pixels: larger pictures are left out unread.
        batch: crops per forward pass.
        device: where to compute.
        threads: CPU threads; 0 takes every core.
    """

    inputs: tuple[str, ...] = ()
    run: Path = Path()
    out: Path = Path("predictions")
    box: tuple[float, float, float, float] | None = None
    boxes: Path | None = None
    detector: Literal["none", "torchvision"] = "none"
    detector_weights: Path | None = None
    box_scale: float = 1.25
    aspect: Aspect = "run"
    weights: Weights = "best"
    flip_test: bool = False
    overlays: bool = True
    video: bool = True
    every: int = 1
    max_pixels: int = 64_000_000
    batch: int = 32
    device: Device = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        super().__post_init__()
        if not self.inputs:
            raise ValueError("inputs must name a picture, a video, a folder, or - for the standard input")
        if self.run == Path():
            raise ValueError("run must be given: the folder of a trained run, such as --run runs/demo")
        if self.box is not None and self.boxes is not None:
            raise ValueError("box must not stand beside boxes: give one of them")
        if (self.detector == "none") != (self.detector_weights is None):
            raise ValueError(
                "detector_weights must stand beside detector torchvision: the file of torchvision's"
                " fasterrcnn_mobilenet_v3_large_fpn"
            )
        if not 0.2 <= self.box_scale <= 5:
            raise ValueError(f"box_scale must lie in 0.2..5, not {self.box_scale}")
        if not 1 <= self.max_pixels <= MOST_PIXELS:
            raise ValueError(f"max_pixels must lie in 1..{MOST_PIXELS}, not {self.max_pixels}")
        check_at_least(self, 1, "every", "batch")
        check_at_least(self, 0, "threads")


@dataclass(frozen=True)
class ExportSettings:
    """A trained run as one file for other programs: pictures in, joints out, soft-argmax included.

    Attributes:
        run: folder of the run, or its .safetensors file.
        format: `onnx`, or `pt2`, which is torch.export's.
        out: file that is written; null takes `model.onnx` or `model.pt2` in the run's folder.
        weights: `best` on validation, where there was one, or `last`.
        tolerance_mm: largest difference to the checkpoint's joints; beyond it nothing is written.
    """

    run: Path
    format: Literal["onnx", "pt2"] = "onnx"
    out: Path | None = None
    weights: Weights = "best"
    tolerance_mm: float = 0.1

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if not 0 < self.tolerance_mm < math.inf:
            raise ValueError(f"tolerance_mm must be above 0, not {self.tolerance_mm}")
