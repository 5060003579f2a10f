"""People into pictures: a z-buffer with sub-pixels, shading, and a shadow on the floor.

Positions are projected through the lens vertex by vertex; triangles are small enough for their edges to stay straight.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numba
import numpy as np

from shards.studio.cameras import StudioCamera
from shards.studio.clothes import Dress, colour_at, vertex_normals
from shards.studio.raycast import FLOOR

_SUBPIXELS: Final = 2
_NEAREST_MM: Final = 300.0


@dataclass(frozen=True, eq=False)
class Backdrop:
    """What one camera sees without people.

    Attributes:
        picture: `h w 3` float32, 0 to 1.
        inverse: `h w` float32, 1 / depth in 1/mm.
        surface: `h w` int16, see `raycast.cast`.
        light: `3`, unit vector to the light, world.
        ambient: the share of light that comes from everywhere.
    """

    picture: np.ndarray
    inverse: np.ndarray
    surface: np.ndarray
    light: np.ndarray
    ambient: float


def draw_person(
    picture: np.ndarray, backdrop: Backdrop, camera: StudioCamera, dress: Dress, faces: np.ndarray, posed: np.ndarray
) -> np.ndarray:
    """Draw a posed person and its shadow.

    Args:
        picture: `h w 3` float32, drawn into.
        backdrop: of the same camera.
        camera: that looks.
        dress: what the person wears.
        faces: `f 3` int32.
        posed: `v 3` mm, world, the dressed vertices.

    Returns:
        Coverage of the person `h w` float32, 0 to 1.
    """
    _cast_shadow(picture, backdrop, camera, faces, posed)
    points_px, depth = camera.see(posed)
    coverage = np.zeros(picture.shape[:2], np.float32)
    window = _window(points_px, picture.shape)
    if window is None:
        return coverage
    left, top, right, bottom = window
    inside = (slice(top, bottom), slice(left, right))
    fine = ((points_px - [left, top]) * _SUBPIXELS).astype(np.float32)
    size = ((bottom - top) * _SUBPIXELS, (right - left) * _SUBPIXELS)
    triangle, corners = _rasterise(fine, (1 / np.maximum(depth, 1)).astype(np.float32), faces, *size)
    normals = vertex_normals(posed, faces).astype(np.float32)
    _shade(
        picture[inside], coverage[inside], backdrop.inverse[inside], triangle, corners, faces,
        (1 / np.maximum(depth, 1)).astype(np.float32), normals, dress.points, dress.look,
        backdrop.light.astype(np.float32), backdrop.ambient,
    )  # fmt: skip
    return coverage


def to_bytes(picture: np.ndarray) -> np.ndarray:
    """A picture `h w 3` float32, 0 to 1, as uint8 RGB."""
    return cv2.convertScaleAbs(picture, alpha=255.0)


def _window(points_px: np.ndarray, shape: tuple[int, ...], margin: int = 0) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the pixels that points may touch, or None where they miss the picture."""
    low = np.floor(points_px.min(axis=0)).astype(int) - margin
    high = np.ceil(points_px.max(axis=0)).astype(int) + 1 + margin
    left, top = max(0, low[0]), max(0, low[1])
    right, bottom = min(shape[1], high[0]), min(shape[0], high[1])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _cast_shadow(
    picture: np.ndarray, backdrop: Backdrop, camera: StudioCamera, faces: np.ndarray, posed: np.ndarray
) -> None:
    """Darken the floor where the person stands in the light, in place."""
    light = backdrop.light
    fallen = posed - np.maximum(posed[:, 2:], 0) / light[2] * light
    points_px, depth = camera.see(fallen)
    in_front = depth > _NEAREST_MM
    if not in_front.any():
        return
    blur = max(3, picture.shape[1] // 90) | 1
    window = _window(points_px[in_front], picture.shape, margin=3 * blur)
    if window is None:
        return
    left, top, right, bottom = window
    inverse = np.where(in_front, 1 / np.maximum(depth, 1), 0).astype(np.float32)
    moved = (points_px - [left, top]).astype(np.float32)
    triangle, _ = _rasterise(moved, inverse, faces, bottom - top, right - left)
    shade = (triangle >= 0).astype(np.float32)
    soft = 0.7 * cv2.blur(shade, (blur, blur)) + 0.3 * cv2.blur(shade, (5 * blur, 3 * blur))
    on_floor = backdrop.surface[top:bottom, left:right] == FLOOR
    picture[top:bottom, left:right] *= (1 - (0.75 - 0.6 * backdrop.ambient) * soft * on_floor)[..., None]


@numba.njit(cache=True, fastmath=True)
def _rasterise(
    points: np.ndarray, inverse: np.ndarray, faces: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest triangle at each sub-pixel's centre.

    Args:
        points: `v 2` float32, in sub-pixels.
        inverse: `v` float32, 1 / depth; 0 drops every triangle of the vertex.
        faces: `f 3`.
        height: rows.
        width: columns.

    Returns:
        Triangle `h w` int32, -1 for none, and the weights of its first two corners `h w 2` float32.
    """
    triangle = np.full((height, width), -1, np.int32)
    corners = np.zeros((height, width, 2), np.float32)
    nearest = np.zeros((height, width), np.float32)
    for f in range(len(faces)):
        a, b, c = faces[f]
        za, zb, zc = inverse[a], inverse[b], inverse[c]
        if za <= 0 or zb <= 0 or zc <= 0 or max(za, zb, zc) > 1 / _NEAREST_MM:
            continue
        xa, ya = points[a]
        xb, yb = points[b]
        xc, yc = points[c]
        area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        # Seen from outside, triangles run clockwise in pixels, whose y points down; the others are turned away.
        if area > -1e-6:
            continue
        scale = 1 / area
        first, last = max(0, int(min(ya, yb, yc) - 0.5)), min(height - 1, int(max(ya, yb, yc) + 0.5))
        start, end = max(0, int(min(xa, xb, xc) - 0.5)), min(width - 1, int(max(xa, xb, xc) + 0.5))
        for row in range(first, last + 1):
            y = row + 0.5
            for column in range(start, end + 1):
                x = column + 0.5
                wa = ((xb - x) * (yc - y) - (xc - x) * (yb - y)) * scale
                wb = ((xc - x) * (ya - y) - (xa - x) * (yc - y)) * scale
                wc = 1 - wa - wb
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                z = wa * za + wb * zb + wc * zc
                if z > nearest[row, column]:
                    nearest[row, column] = z
                    triangle[row, column] = f
                    corners[row, column, 0] = wa
                    corners[row, column, 1] = wb
    return triangle, corners


@numba.njit(cache=True, fastmath=True)
def _shade(
    picture: np.ndarray,
    coverage: np.ndarray,
    behind: np.ndarray,
    triangle: np.ndarray,
    corners: np.ndarray,
    faces: np.ndarray,
    inverse: np.ndarray,
    normals: np.ndarray,
    points: np.ndarray,
    look: np.ndarray,
    light: np.ndarray,
    ambient: float,
) -> None:
    """Colour the sub-pixels of a person that nothing hides, and blend them into the picture, in place."""
    colour = np.zeros(3, np.float32)
    for row in range(picture.shape[0]):
        for column in range(picture.shape[1]):
            red, green, blue, seen = 0.0, 0.0, 0.0, 0
            for sub in range(_SUBPIXELS * _SUBPIXELS):
                i, j = row * _SUBPIXELS + sub // _SUBPIXELS, column * _SUBPIXELS + sub % _SUBPIXELS
                f = triangle[i, j]
                if f < 0:
                    continue
                a, b, c = faces[f]
                wa, wb = corners[i, j]
                wc = 1 - wa - wb
                if wa * inverse[a] + wb * inverse[b] + wc * inverse[c] < behind[row, column]:
                    continue
                nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
                ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
                nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
                x = wa * points[a, 0] + wb * points[b, 0] + wc * points[c, 0]
                y = wa * points[a, 1] + wb * points[b, 1] + wc * points[c, 1]
                z = wa * points[a, 2] + wb * points[b, 2] + wc * points[c, 2]
                down = wa * points[a, 3] + wb * points[b, 3] + wc * points[c, 3]
                factor = colour_at(look, x, y, z, down, y < look[27] + 70, colour)
                # Half of the light wraps round, as a large lamp's does.
                facing = max(0.0, (nx * light[0] + ny * light[1] + nz * light[2] + 0.25) / 1.25)
                bright = factor * (ambient * (0.8 + 0.25 * nz) + (1 - ambient) * (0.12 + 1.05 * facing))
                red += colour[0] * bright
                green += colour[1] * bright
                blue += colour[2] * bright
                seen += 1
            if seen:
                share = seen / (_SUBPIXELS * _SUBPIXELS)
                coverage[row, column] = share
                picture[row, column, 0] = picture[row, column, 0] * (1 - share) + red / (_SUBPIXELS * _SUBPIXELS)
                picture[row, column, 1] = picture[row, column, 1] * (1 - share) + green / (_SUBPIXELS * _SUBPIXELS)
                picture[row, column, 2] = picture[row, column, 2] * (1 - share) + blue / (_SUBPIXELS * _SUBPIXELS)
