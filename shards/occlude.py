"""Objects pasted over crops: the bank in memory, what is drawn from it, and how OpenCV pastes it.

Source: Sarandi et al., "How Robust is 3D Human Pose Estimation to Occlusion?", 2018: an object of relative size s is
scaled by s * min(crop width, crop height) / 256 and its centre lies anywhere in the crop. Two things differ from the
published code. Colours are premultiplied by alpha, so that interpolation brings no colour from behind an object's
edge. And objects stand ready at several sizes, each averaged down, so that a bilinear warp of the nearest larger one
does not alias: that is the same on CPU and GPU.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from poselib.errors import InputError
from shards.loader_settings import MOST_OCCLUDERS, AugmentSettings
from shards.occluders import load_occluders
from shards.storage_settings import StorageSettings

LEVELS: Final = 4
"""Sizes at which each object stands ready: its own, half, a quarter, an eighth."""

FULL_SIZE_PX: Final = 256.0
"""Shorter side of the crop in which an object of size 1 has the pixels it was stored with."""

OCCLUDER_DRAWS: Final = 2 + 4 * MOST_OCCLUDERS
"""Uniform numbers per sample: whether, how many, and for each object which, size, centre x, centre y."""


@dataclass(frozen=True, eq=False)
class Bank:
    """The objects of a run, in memory.

    Attributes:
        levels: uint8 `h w 4`, RGB times alpha, and alpha; `LEVELS` per object, from large to small.
        sizes: float64 `n LEVELS 2`, width and height of each, px.
    """

    levels: tuple[tuple[np.ndarray, ...], ...]
    sizes: np.ndarray


@dataclass(frozen=True, eq=False)
class Occlusions:
    """What is pasted over `b` crops, in the order of pasting; places from `count` on mean nothing.

    Attributes:
        count: int64 `b`, objects on each crop.
        number: int64 `b 8`, which objects of the bank.
        level: int64 `b 8`, at which of their sizes.
        object_from_crop: float32 `b 8 2 3`, takes crop pixels to pixels of the object at that size.
    """

    count: np.ndarray
    number: np.ndarray
    level: np.ndarray
    object_from_crop: np.ndarray


@dataclass(frozen=True, eq=False)
class Layers:
    """What the picture graph pastes.

    Attributes:
        pictures: for each of `b` crops its objects, as in `Bank.levels`.
        object_from_crop: as in `Occlusions`.
    """

    pictures: list[list[np.ndarray]]
    object_from_crop: np.ndarray


def open_bank(folder: Path | str, storage: StorageSettings | None = None) -> Bank:
    """The occluder bank of a folder or behind a URL, ready to be drawn from.

    Raises:
        InputError: no finished bank there, an empty one, or a shard that cannot be read.
    """
    pictures = load_occluders(folder, storage)
    if not pictures:
        raise InputError(f"{folder} holds no occluders; build the bank from VOC2012 again")
    return make_bank(pictures)


def make_bank(pictures: Iterable[np.ndarray]) -> Bank:
    """A bank of objects, uint8 `h w 4` each, RGBA, alpha not premultiplied."""
    levels = tuple(_levels(picture) for picture in pictures)
    sizes = [[level.shape[1::-1] for level in of_object] for of_object in levels]
    return Bank(levels, np.array(sizes, np.float64))


def draw_occlusions(
    uniform: np.ndarray, augment: Sequence[AugmentSettings], bank: Bank | None, width: int, height: int
) -> Occlusions:
    """What is pasted over crops.

    Args:
        uniform: `b OCCLUDER_DRAWS`, in [0, 1).
        augment: settings of each sample.
        bank: what is drawn from; None where no settings ask for objects.
        width: of the crop, px.
        height: of the crop, px.

    Raises:
        InputError: objects are asked for, and there is no bank.
    """
    share = np.array([settings.occluders for settings in augment])
    if bank is None:
        if share.any():
            raise InputError("occluders are asked for, but no occluder bank is given")
        none = np.zeros((len(uniform), MOST_OCCLUDERS), np.int64)
        return Occlusions(none[:, 0], none, none, np.zeros((*none.shape, 2, 3), np.float32))
    fewest, most = np.array([settings.occluder_count for settings in augment]).reshape(-1, 2).T
    count = np.where(uniform[:, 0] < share, fewest + (uniform[:, 1] * (most - fewest + 1)).astype(np.int64), 0)
    which, size, x, y = uniform[:, 2:].reshape(-1, MOST_OCCLUDERS, 4).transpose(2, 0, 1)
    smallest, largest = np.array([settings.occluder_size for settings in augment]).reshape(-1, 2).T[..., None]
    scale = (smallest + (largest - smallest) * size) * min(width, height) / FULL_SIZE_PX
    number = (which * len(bank.levels)).astype(np.int64)
    level = np.clip(np.floor(-np.log2(scale)), 0, LEVELS - 1).astype(np.int64)
    own_size, level_size = bank.sizes[number, 0], bank.sizes[number, level]
    per_px = level_size / own_size / scale[..., None]
    offset = level_size / 2 - per_px * np.stack([x * width, y * height], -1)
    maps = np.zeros((*number.shape, 2, 3))
    maps[..., [0, 1], [0, 1]] = per_px
    maps[..., 2] = offset
    return Occlusions(count, number, level, maps.astype(np.float32))


def layers(bank: Bank, drawn: Occlusions) -> Layers:
    """The pictures behind the draws."""
    pictures = [
        [bank.levels[number][level] for number, level in zip(numbers[:count], levels[:count], strict=True)]
        for count, numbers, levels in zip(drawn.count, drawn.number, drawn.level, strict=True)
    ]
    return Layers(pictures, drawn.object_from_crop)


def most_occluders(augment: Iterable[AugmentSettings]) -> int:
    """The most objects that a crop can have under any of these settings."""
    return max((settings.occluder_count[1] for settings in augment if settings.occluders), default=0)


def paste(crop: np.ndarray, picture: np.ndarray, object_from_crop: np.ndarray) -> None:
    """Paste an object over a crop, uint8 `h w 3` RGB, in place; only the object's own rectangle is touched.

    Args:
        crop: what is pasted over.
        picture: uint8 `h w 4` as in `Bank.levels`: RGB times alpha, and alpha.
        object_from_crop: `2 3`, without rotation.
    """
    (per_x, _, x), (_, per_y, y) = object_from_crop.tolist()
    rows, columns = picture.shape[:2]
    # Interpolation lets an edge fade out over half a pixel of the object.
    left, right = max(0, math.floor((-0.5 - x) / per_x)), min(crop.shape[1], math.ceil((columns + 0.5 - x) / per_x))
    top, bottom = max(0, math.floor((-0.5 - y) / per_y)), min(crop.shape[0], math.ceil((rows + 0.5 - y) / per_y))
    if left >= right or top >= bottom:
        return
    part = crop[top:bottom, left:right]
    # OpenCV's pixel centres sit at integers.
    matrix = np.array([[per_x, 0, per_x * (left + 0.5) + x - 0.5], [0, per_y, per_y * (top + 0.5) + y - 0.5]])
    size, flags = (right - left, bottom - top), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(picture, matrix, size, flags=flags, borderValue=0)
    rest = cv2.cvtColor(cv2.bitwise_not(cv2.extractChannel(warped, 3)), cv2.COLOR_GRAY2RGB)
    seen = cv2.multiply(part, rest, scale=1 / 255)
    part[:] = cv2.add(seen, cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB))


def _levels(picture: np.ndarray) -> tuple[np.ndarray, ...]:
    """An object, premultiplied, at all sizes."""
    colour = cv2.multiply(picture[..., :3], cv2.cvtColor(picture[..., 3], cv2.COLOR_GRAY2RGB), scale=1 / 255)
    full = np.dstack([colour, picture[..., 3]])
    height, width = full.shape[:2]
    sizes = [(max(1, round(width / 2**level)), max(1, round(height / 2**level))) for level in range(1, LEVELS)]
    return full, *(cv2.resize(full, size, interpolation=cv2.INTER_AREA) for size in sizes)
