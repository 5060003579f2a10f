"""What a prediction leaves behind: `poses.json`, pictures and videos with skeletons."""

import json
import math
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

import cv2
import numpy as np

from cluster.predict.camera import Camera
from cluster.predict.poses import Pose
from cluster.predict.video import VideoWriter, frame_rate, open_writer
from poselib.calibration import NEAR_MM
from poselib.drawing import draw_skeleton
from poselib.skeleton import H36M_JOINTS, PARENTS
from shards.atomic import write_whole, written_whole

FORMAT_VERSION: Final = 1
POSES: Final = "poses.json"
OVERLAYS: Final = "overlays"
"""Below the folder that poses are written to."""
_QUALITY: Final = 92
_LARGEST_SIDE_PX: Final = 65_000
"""JPEG knows no larger pictures; their overlays are smaller."""


def described(name: str, frame: int | None, size: tuple[int, int], camera: Camera, people: list[Any]) -> dict[str, Any]:
    """One picture's entry in `poses.json`: its name, size (width, height) in px, focal length and people."""
    return {
        "picture": name,
        "frame": frame,
        "width": size[0],
        "height": size[1],
        "focal_px": round(float(camera.intrinsics[0]), 2),
        "focal_from": camera.origin,
        "people": people,
    }


def person(pose: Pose, box_from: str) -> dict[str, Any]:
    """One person's entry."""
    return {
        "box": _rounded(pose.box, 2),
        "box_from": box_from,
        "root_depth_mm": round(pose.root_depth_mm, 1),
        "root_depth_from": pose.root_depth_from,
        "joints_px": _rounded(pose.joints_px, 2),
        "joints_mm": _rounded(pose.joints_mm, 2),
        "camera_mm": _rounded(pose.camera_mm, 2),
        "spread_mm": _rounded(pose.spread_mm, 2),
        "confidence": _rounded(pose.confidence, 4),
    }


def _rounded(values: np.ndarray, digits: int) -> Any:
    """Nested lists, null where there is no number."""
    if values.ndim > 1:
        return [_rounded(row, digits) for row in values]
    return [round(value, digits) if math.isfinite(value) else None for value in values.tolist()]


class PosesFile:
    """`poses.json`, written picture by picture, so that its size does not matter; whole or not at all."""

    def __init__(self, folder: Path, model: dict[str, Any]) -> None:
        self.path = folder / POSES
        self._stack = ExitStack()
        self._stream: BinaryIO = self._stack.enter_context(written_whole(self.path))
        head = {"format": FORMAT_VERSION, "model": model, "joints": H36M_JOINTS, "parents": PARENTS, "units": UNITS}
        self._write(json.dumps(head, indent=1)[:-2] + ',\n "pictures": [')
        self._left_out: list[str] = []
        self._first = True

    def __enter__(self) -> "PosesFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write('\n ],\n "left_out": ' + json.dumps(self._left_out, ensure_ascii=False) + "\n}\n")
        self._stack.__exit__(kind, error, trace)

    def add(self, entry: dict[str, Any]) -> None:
        """Append one picture."""
        self._write(("" if self._first else ",") + "\n  " + json.dumps(entry, ensure_ascii=False))
        self._first = False

    def leave_out(self, line: str) -> None:
        """Note what was left out, and why."""
        self._left_out.append(line)

    def _write(self, text: str) -> None:
        self._stream.write(text.encode("utf-8", "backslashreplace"))


UNITS: Final = {
    "joints_px": "px of the picture as it is shown, turned by its EXIF tag; the first pixel's centre is (0.5, 0.5)",
    "joints_mm": "mm from the pelvis, camera frame: x right, y down, z away",
    "camera_mm": "mm from the camera, same frame; only as good as focal_px and root_depth_mm",
    "root_depth_from": "`bone lengths` is an estimate: depth at which limbs have an average person's lengths",
    "spread_mm": "root of the summed variances of a joint's heat map, mm; null without heat maps",
    "confidence": f"chance that a joint lies within {NEAR_MM:g} mm, were its spread that of a normal distribution",
    "box": "x, y, width, height in px",
}


class Overlays:
    """Pictures and videos with skeletons over them.

    Args:
        folder: that they are written to.
        pictures: whether pictures are written.
        videos: whether videos are.
        every: each n-th frame of a video is there.
        pool: that pictures are drawn in.
    """

    def __init__(self, folder: Path, pictures: bool, videos: bool, every: int, pool: Executor) -> None:
        self.written: list[Path] = []
        self._pool, self._drawing = pool, list[Future[None]]()
        self._folder, self._pictures, self._videos, self._every = folder, pictures, videos, every
        self._names: set[str] = set()
        self._video: Path | None = None
        self._writer: VideoWriter | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "Overlays":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add_picture(self, name: str, pixels: np.ndarray, people: Sequence[Pose]) -> None:
        """One picture; it is there after `wait`."""
        self._close_video()
        if self._pictures:
            path = self._path(name, ".jpg")
            self._drawing.append(self._pool.submit(_write_picture, path, pixels, people))
            self.written.append(path)

    def wait(self) -> None:
        """Until every picture is written."""
        for job in self._drawing:
            job.result()
        self._drawing.clear()

    def add_frame(self, video: Path, name: str, pixels: np.ndarray, people: Sequence[Pose]) -> None:
        """The next frame of a video; another video ends the one before."""
        if not self._videos:
            return
        if self._video != video:
            self._close_video()
            path = self._path(name, ".mp4")
            self._writer = self._stack.enter_context(open_writer(path, frame_rate(video, self._every)))
            self._video = video
            self.written.append(path)
        assert self._writer is not None
        self._writer.add(draw_people(pixels, people))

    def _close_video(self) -> None:
        self._stack.close()
        self._video = self._writer = None

    def _path(self, name: str, suffix: str) -> Path:
        """A new file's path: the input's own name, a number behind it where two are alike."""
        stem = Path(name).name if name != "-" else "stdin"
        plain = stem if stem.lower().endswith(suffix) else f"{stem}{suffix}"
        unique, count = plain, 1
        while unique in self._names:
            count += 1
            unique = f"{plain.removesuffix(suffix)}-{count}{suffix}"
        self._names.add(unique)
        folder = self._folder / OVERLAYS
        folder.mkdir(parents=True, exist_ok=True)
        return folder / unique


def _write_picture(path: Path, pixels: np.ndarray, people: Sequence[Pose]) -> None:
    drawn = cv2.cvtColor(draw_people(pixels, people), cv2.COLOR_RGB2BGR)
    if max(drawn.shape[:2]) > _LARGEST_SIDE_PX:
        shrink = _LARGEST_SIDE_PX / max(drawn.shape[:2])
        drawn = cv2.resize(drawn, [max(1, int(side * shrink)) for side in drawn.shape[1::-1]])
    _, jpeg = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    write_whole(path, jpeg.tobytes())


def draw_people(pixels: np.ndarray, people: Sequence[Pose]) -> np.ndarray:
    """A picture with everybody's skeleton over it, those far away first."""
    for pose in sorted(people, key=lambda one: -one.root_depth_mm):
        pixels = draw_skeleton(pixels, pose.joints_px)
    return pixels
