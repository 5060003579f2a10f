"""A person in its frame -> the stored sample: cut, scaled down once, encoded."""

import math

import cv2
import numpy as np

from poselib.camera import apply_affine, distort, invert_affine
from shards.sample import Sample
from shards.settings import BuildSettings
from shards.source import Person

SMALLEST_BOX_PX = 8.0


def crop_person(person: Person, settings: BuildSettings) -> Sample:
    """Cut a person out of its frame.

    The stored picture covers `cover_width` x `cover_height` nominal boxes, rounded outwards to whole pixels of the
    frame, and is scaled so that the box' longer side is at most `stored_px`. Starting from whole pixels, the area
    average that scales it down is exact, and without scaling the pixels are the frame's own. Beyond the frame it is
    black, and `padded` says how much of it is.

    Raises:
        ValueError: the box is not finite or too small to hold a person.
    """
    region, size = stored_region(person.box, settings)
    frame_from_stored = _affine(region, size)
    if settings.lens == "undistorted" and person.distortion.any():
        picture, padded = _undistorted(person, region, size)
    else:
        picture, padded = _straight(person.picture, region, size)
    stored_from_frame = invert_affine(frame_from_stored)
    scale = stored_from_frame[[0, 1], [0, 1]]
    arrays = {
        "joints_px": apply_affine(stored_from_frame, person.joints_px) * person.supervised_px[:, None],
        "joints_mm": person.joints_mm,
        "supervised_px": person.supervised_px,
        "supervised_mm": person.supervised_mm,
        "intrinsics": _scale_intrinsics(person.intrinsics, stored_from_frame),
        "distortion": person.distortion if settings.lens == "brown" else np.zeros(5),
        "box": np.concatenate([apply_affine(stored_from_frame, person.box[None, :2])[0], person.box[2:] * scale]),
        "frame_from_stored": frame_from_stored,
        "padded": np.array([padded]),
        "head_size": np.array([person.head_size * math.sqrt(scale[0] * scale[1])]),
    }
    return Sample(person.key, _encode(picture, settings.quality), person.names, arrays)


def stored_region(box: np.ndarray, settings: BuildSettings) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Which whole pixels of the frame are stored, and at what size.

    Args:
        box: nominal box `4`, x y w h in px of the frame.
        settings: `cover_width`, `cover_height` and `stored_px` are read.

    Returns:
        (left, top, right, bottom) in px of the frame, which may lie outside of it, and (width, height) in px.

    Raises:
        ValueError: the box is not finite or smaller than 8 px.
    """
    if not np.isfinite(box).all() or box[2:].min() < SMALLEST_BOX_PX:
        raise ValueError(
            f"the person's box is {box[2]:.1f} x {box[3]:.1f} px; at least {SMALLEST_BOX_PX:.0f} are needed"
        )
    half = box[2:] * (settings.cover_width, settings.cover_height) / 2
    centre = box[:2] + box[2:] / 2
    left, top = np.floor(centre - half + 1e-6).astype(int)
    right, bottom = np.ceil(centre + half - 1e-6).astype(int)
    scale = min(1.0, settings.stored_px / box[2:].max())
    width, height = (max(1, math.floor(side * scale + 1e-6)) for side in (right - left, bottom - top))
    return (int(left), int(top), int(right), int(bottom)), (width, height)


def _affine(region: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    left, top, right, bottom = region
    return np.array([[(right - left) / size[0], 0.0, left], [0.0, (bottom - top) / size[1], top]])


def _straight(frame: np.ndarray, region: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """The region scaled to size, and the share of it that lies beyond the frame."""
    left, top, right, bottom = region
    inner = frame[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    padded = 1 - inner.shape[0] * inner.shape[1] / ((right - left) * (bottom - top))
    if padded > 0:
        whole = np.zeros((bottom - top, right - left, 3), np.uint8)
        y, x = min(max(-top, 0), bottom - top), min(max(-left, 0), right - left)
        whole[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
        inner = whole
    if inner.shape[1::-1] != size:
        inner = cv2.resize(inner, size, interpolation=cv2.INTER_AREA)
    return inner, padded


def _undistorted(person: Person, region: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """The region as a pinhole of the same intrinsics would see it: each pixel the mean of a grid of samples."""
    grid = max(1, math.ceil((region[2] - region[0]) / size[0] - 1e-6))
    fine = (size[0] * grid, size[1] * grid)
    xs, ys = (np.arange(side) + 0.5 for side in fine)
    pixels = apply_affine(_affine(region, fine), np.stack(np.meshgrid(xs, ys), axis=-1))
    focal, centre = person.intrinsics[:2], person.intrinsics[2:]
    filmed = distort((pixels - centre) / focal, person.distortion) * focal + centre
    height, width = person.picture.shape[:2]
    padded = 1 - float(((filmed >= 0) & (filmed <= (width, height))).all(axis=-1).mean())
    map_x, map_y = np.moveaxis((filmed - 0.5).astype(np.float32), -1, 0)  # OpenCV counts from pixel centres
    picture = cv2.remap(person.picture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return (picture if grid == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)), padded


def _scale_intrinsics(intrinsics: np.ndarray, stored_from_frame: np.ndarray) -> np.ndarray:
    if not intrinsics.any():
        return np.zeros(4)
    focal = intrinsics[:2] * stored_from_frame[[0, 1], [0, 1]]
    return np.concatenate([focal, apply_affine(stored_from_frame, intrinsics[None, 2:])[0]])


def _encode(picture: np.ndarray, quality: int) -> bytes:
    ok, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError("OpenCV could not encode the picture as JPEG")
    return jpeg.tobytes()
