"""Things painted in front of a picture: plants, bottles and balls, with exact masks."""

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import cv2
import numpy as np

_FINER: Final = 3
"""Things are painted this many times larger and then shrunk, which softens their edges."""

Layer = tuple[np.ndarray, np.ndarray]
"""A painting `h w 3` float32, 0 to 1, and where it is, `h w` uint8, 0 or 255."""


def paint_object(rng: np.random.Generator, picture: np.ndarray) -> tuple[str, np.ndarray]:
    """Paint a random thing into `picture` (`h w 3` float32, in place); returns its VOC class and mask `h w` bool."""
    height, width = picture.shape[:2]
    name = str(rng.choice(sorted(_PAINTERS)))
    side = int(1.5 * rng.uniform(0.2, 0.6) * height)
    left = int(rng.uniform(0.02, 0.98) * width) - side // 2
    top = int(rng.uniform(0.35, 0.95) * height) - side // 2
    large = side * _FINER
    paint, where = _PAINTERS[name](rng, (large, large), np.array([large / 2, large / 2]), large / 1.5)
    paint = _texture(rng, paint)
    share = cv2.resize(where, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    covered = cv2.resize(paint * (where[..., None] > 0), (side, side), interpolation=cv2.INTER_AREA)
    # The part of the painting that lies in the picture.
    rows, columns = slice(max(0, top), min(height, top + side)), slice(max(0, left), min(width, left + side))
    part = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    picture[rows, columns] = picture[rows, columns] * (1 - share[part]) + covered[part]
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = share[part][..., 0] > 0.5
    return name, mask


def _texture(rng: np.random.Generator, paint: np.ndarray) -> np.ndarray:
    """Grain, and light from one side."""
    height, width = paint.shape[:2]
    grain = cv2.resize(rng.normal(0, 0.09, (height // 12 + 1, width // 12 + 1)).astype(np.float32), (width, height))
    slope = float(rng.choice([-1, 1])) * np.linspace(-0.25, 0.25, width, dtype=np.float32)
    return np.clip(paint * (1 + grain + slope)[..., None], 0, 1)


def _blank(shape: tuple[int, int]) -> Layer:
    return np.zeros((*shape, 3), np.float32), np.zeros(shape, np.uint8)


def _fill(layer: Layer, outline: np.ndarray, colour: np.ndarray) -> None:
    """Fill a polygon `n 2` px."""
    points = np.round(outline).astype(np.int32)
    cv2.fillPoly(layer[0], [points], tuple(float(value) for value in np.clip(colour, 0, 1)))
    cv2.fillPoly(layer[1], [points], 255)


def _plant(rng: np.random.Generator, shape: tuple[int, int], centre: np.ndarray, tall: float) -> Layer:
    """Leaves out of a pot."""
    layer = _blank(shape)
    pot = np.array([[-0.17, 0.15], [0.17, 0.15], [0.12, 0.5], [-0.12, 0.5]])
    green, along = rng.uniform([0.05, 0.25, 0.03], [0.35, 0.6, 0.25]), np.linspace(0, 1, 9)
    for _ in range(rng.integers(14, 34)):
        angle, length = rng.normal(-np.pi / 2, 0.75), rng.uniform(0.25, 0.62)
        broad = rng.uniform(0.02, 0.06) * np.sin(np.pi * along)
        bend = angle + rng.normal(0, 0.5) * along
        steps = np.stack([np.cos(bend), np.sin(bend)], axis=1) * length / 8
        spine = np.array([0, 0.15]) + np.cumsum(steps, axis=0)
        side = np.stack([-np.sin(bend), np.cos(bend)], axis=1) * broad[:, None]
        _fill(
            layer, centre + tall * np.concatenate([spine + side, (spine - side)[::-1]]), green * rng.uniform(0.5, 1.4)
        )
    _fill(layer, centre + tall * pot, rng.uniform(0.15, 0.85, 3))
    return layer


def _bottle(rng: np.random.Generator, shape: tuple[int, int], centre: np.ndarray, tall: float) -> Layer:
    """A profile turned about its axis, with a label and a gloss."""
    layer = _blank(shape)
    wide, neck = rng.uniform(0.11, 0.17), rng.uniform(0.03, 0.05)
    profile = np.array([[neck, -0.5], [neck, -0.28], [wide, -0.12], [wide, 0.48], [wide * 0.9, 0.5]])
    outline = centre + tall * np.concatenate([profile, (profile * [-1, 1])[::-1]])
    colour = rng.uniform(0.05, 0.8, 3)
    _fill(layer, outline, colour)
    label = np.array([[-wide, 0.05], [wide, 0.05], [wide, 0.32], [-wide, 0.32]])
    _fill(layer, centre + tall * label, rng.uniform(0.2, 1, 3))
    gloss = np.array([[-0.7, -0.08], [-0.5, -0.08], [-0.5, 0.45], [-0.7, 0.45]]) * [wide, 1]
    _fill(layer, centre + tall * gloss, colour + 0.35)
    return layer


def _monitor(rng: np.random.Generator, shape: tuple[int, int], centre: np.ndarray, tall: float) -> Layer:
    """A screen with bands of colour on a foot, seen a little askew."""
    layer = _blank(shape)
    frame = np.array([[-0.6, -0.5], [0.6, -0.5], [0.6, 0.3], [-0.6, 0.3]]) + rng.normal(0, 0.03, (4, 2))
    dark = rng.uniform(0.03, 0.3, 3)
    _fill(layer, centre + tall * np.array([[-0.06, 0.2], [0.06, 0.2], [0.2, 0.5], [-0.2, 0.5]]), dark * 1.5)
    _fill(layer, centre + tall * frame, dark)
    low, high = frame[3] * 0.92, frame[2] * 0.92
    top_low, top_high = frame[0] * 0.92, frame[1] * 0.92
    edges = np.sort(np.r_[0, rng.uniform(0, 1, rng.integers(2, 7)), 1])
    for start, end in pairwise(edges):
        band = [top_low + start * (low - top_low), top_high + start * (high - top_high)]
        band += [top_high + end * (high - top_high), top_low + end * (low - top_low)]
        _fill(layer, centre + tall * np.array(band), rng.uniform(0, 1, 3))
    return layer


_PAINTERS: Final[dict[str, Callable[[np.random.Generator, tuple[int, int], np.ndarray, float], Layer]]] = {
    "pottedplant": _plant,
    "bottle": _bottle,
    "tvmonitor": _monitor,
}
"""How to paint each of VOC's classes that the studio has beside furniture and people."""
