"""Boxes to crops, on the CPU, as shard sets and training make them together."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from poselib.camera import compose_affine, invert_affine
from poselib.settings import ModelSettings
from shards.augment import crop_matrices
from shards.loader_settings import CropSettings

_KEPT_PX: float = 1.5
"""How much finer than the crop a picture stays when it is scaled down: what shard sets store by default."""

_LARGEST_SIDE_PX = 32_000
"""OpenCV warps no larger pictures."""


@dataclass(frozen=True, eq=False)
class Crops:
    """What a network is shown of one picture.

    Attributes:
        pixels: uint8 `n h w 3`, RGB.
        frame_from_crop: `n 2 3`, affine maps from crop pixels to the picture's.
    """

    pixels: np.ndarray
    frame_from_crop: np.ndarray


def squared(boxes: np.ndarray, scale: float) -> np.ndarray:
    """Boxes `n 4`, x y w h in px, to squares about the same centres, `scale` times their longer sides wide."""
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    side = np.repeat(boxes[:, 2:].max(axis=1, keepdims=True) * scale, 2, axis=1)
    return np.concatenate([centre - side / 2, side], axis=1)


def cut(picture: np.ndarray, boxes: np.ndarray, scale: float, crop: CropSettings, model: ModelSettings) -> Crops:
    """Crops of a picture, black beyond its border.

    Args:
        picture: uint8 `h w 3`.
        boxes: `n 4`, x y w h in px. Each becomes a square first, as the boxes of shard sets are.
        scale: how much larger than its longer side the square is, about the box' centre.
        crop: how a square becomes a crop of another aspect.
        model: the crop's size.
    """
    crop_from_frame = crop_matrices(squared(boxes, scale), crop, model)
    pixels = np.empty((len(boxes), model.crop_height, model.crop_width, 3), np.uint8)
    for row, matrix in enumerate(crop_from_frame):
        _warp(picture, matrix, pixels[row])
    return Crops(pixels, invert_affine(crop_from_frame))


def _warp(picture: np.ndarray, crop_from_frame: np.ndarray, into: np.ndarray) -> None:
    """One crop, black where the picture does not reach.

    A person much larger than the crop is averaged down first: a warp alone would skip pixels.
    """
    height, width = into.shape[:2]
    frame_from_crop = invert_affine(crop_from_frame)
    shrink = float(frame_from_crop[[0, 1], [0, 1]].min()) / _KEPT_PX
    if shrink > 1:
        left, top = (max(0, math.floor(value)) for value in frame_from_crop[:, 2])
        end = frame_from_crop @ np.array([width, height, 1.0])
        right, bottom = (min(side, math.ceil(value)) for side, value in zip(picture.shape[1::-1], end, strict=True))
        if right <= left or bottom <= top:
            into[:] = 0
            return
        part = picture[top:bottom, left:right]
        size = tuple(max(1, round(side / shrink)) for side in (right - left, bottom - top))
        picture = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        sx, sy = (right - left) / size[0], (bottom - top) / size[1]
        crop_from_frame = compose_affine(crop_from_frame, np.array([[sx, 0.0, left], [0.0, sy, top]]))
    elif max(picture.shape[:2]) > _LARGEST_SIDE_PX:
        left, top = np.clip(frame_from_crop[:, 2].astype(int) - 2, 0, np.array(picture.shape[1::-1]) - 1)
        picture = picture[top : top + _LARGEST_SIDE_PX, left : left + _LARGEST_SIDE_PX]
        crop_from_frame = compose_affine(crop_from_frame, np.array([[1.0, 0.0, left], [0.0, 1.0, top]]))
    # OpenCV counts from the centre of the first pixel.
    matrix = crop_from_frame.copy()
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    cv2.warpAffine(picture, matrix, (width, height), into, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
