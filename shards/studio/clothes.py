"""Clothes, hair and faces: what a person looks like, as numbers that the renderer reads at each point of the skin.

Hems and sleeves are cut at places of the rest shape, per pixel, so that their borders are sharp whatever the mesh.
"""

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np

from shards.studio.body import BONES, Body
from shards.studio.raycast import CHECKS, CLOUDS, PLAIN, SPOTS, STRIPES, noise

# Columns of a look: colours (rgb, 0 to 1), then places in mm of the rest shape.
SKIN, HAIR, SHIRT, PRINT, TROUSERS, SHOES = 0, 3, 6, 9, 12, 15
SLEEVE, HEM, LEG_END, COLLAR, SHOE_TOP, KIND, SIZE = range(18, 25)
HAIR_FRONT, HAIR_BACK, NOSE_Y, NOSE_Z, BACK_Y, WRINKLE, VEE = range(25, 32)
LOOK_COLUMNS: Final = 32

_SKINS: Final = ((0.93, 0.76, 0.65), (0.85, 0.65, 0.52), (0.72, 0.52, 0.40), (0.55, 0.38, 0.28), (0.38, 0.26, 0.20))
_HAIRS: Final = ((0.10, 0.08, 0.07), (0.22, 0.14, 0.09), (0.40, 0.27, 0.15), (0.66, 0.52, 0.30), (0.55, 0.54, 0.53))


@dataclass(frozen=True, eq=False)
class Dress:
    """A dressed body.

    Attributes:
        vertices: `v 3` mm, the rest shape with cloth and hair on it.
        points: `v 4` float32: the bare rest shape in mm, and how far down an arm a point is (0 shoulder, 1 wrist).
        look: `LOOK_COLUMNS` float32.
    """

    vertices: np.ndarray
    points: np.ndarray
    look: np.ndarray


def draw_dress(rng: np.random.Generator, body: Body, person: np.random.Generator) -> Dress:
    """Draw clothes for a body from `rng`, and its skin and hair from `person`, which may stay the same."""
    points = np.column_stack([body.vertices, _down_the_arm(body)])
    look = _draw_clothes(rng, body)
    _draw_face(person, body, look)
    swell = _swell(rng, body, points, look)
    vertices = body.vertices + vertex_normals(body.vertices, body.faces) * swell[:, None]
    return Dress(vertices, points.astype(np.float32), look)


def _draw_clothes(rng: np.random.Generator, body: Body) -> np.ndarray:
    """The numbers of a look, without the face."""
    tall = body.stature
    neck, hip, knee, ankle = body.landmarks[[8, 1, 2, 3], 2]
    look = np.zeros(LOOK_COLUMNS, np.float32)
    for column in (SHIRT, PRINT, TROUSERS):
        look[column : column + 3] = _cloth_colour(rng)
    look[TROUSERS : TROUSERS + 3] *= rng.uniform(0.4, 1.0)
    look[SHOES : SHOES + 3] = rng.choice([0.08, 0.15, 0.3, 0.85]) + rng.uniform(-0.05, 0.05, 3)
    look[SLEEVE] = rng.choice([0.12, 0.3, 0.42, 0.75, 0.96], p=[0.1, 0.35, 0.15, 0.05, 0.35])
    look[HEM] = hip + tall * rng.uniform(-0.06, 0.03)
    short = rng.random() < 0.25
    look[LEG_END] = knee + tall * rng.uniform(-0.02, 0.06) if short else ankle + tall * rng.uniform(-0.01, 0.03)
    look[COLLAR] = neck + tall * rng.uniform(-0.012, 0.012)
    look[SHOE_TOP] = ankle + tall * rng.uniform(-0.02, 0.02)
    look[KIND] = rng.choice([PLAIN, STRIPES, CHECKS, CLOUDS, SPOTS], p=[0.45, 0.2, 0.1, 0.15, 0.1])
    look[SIZE] = rng.uniform(35, 110)
    look[WRINKLE] = rng.uniform(0.06, 0.16)
    look[VEE] = rng.choice([0.0, 0.05]) * tall
    return look


def _draw_face(rng: np.random.Generator, body: Body, look: np.ndarray) -> None:
    """Add skin, hair and where the face is to a look."""
    tall, nose, neck = body.stature, body.landmarks[9], body.landmarks[8, 2]
    look[SKIN : SKIN + 3] = np.clip(np.array(_SKINS[rng.integers(len(_SKINS))]) + rng.normal(0, 0.02, 3), 0.05, 1)
    look[HAIR : HAIR + 3] = _HAIRS[rng.integers(len(_HAIRS))]
    look[NOSE_Y], look[NOSE_Z] = nose[1] - 30, nose[2]
    look[BACK_Y] = body.vertices[body.skin[:, BONES.index("head")] > 0.5, 1].max()
    look[HAIR_FRONT] = nose[2] + tall * rng.uniform(0.045, 0.056)
    # Short at the nape, to the shoulders, or none.
    look[HAIR_BACK] = rng.choice([nose[2] - 0.02 * tall, neck - 0.02 * tall, nose[2] + 0.04 * tall], p=[0.6, 0.3, 0.1])


def _cloth_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour of cloth, from greys to strong ones."""
    grey, hue = rng.uniform(0.08, 0.95), rng.uniform(0, 1, 3)
    strength = rng.choice([0.15, 0.6, 0.9])
    return np.clip((1 - strength) * grey + strength * hue, 0.04, 0.97)


def _down_the_arm(body: Body) -> np.ndarray:
    """How far down an arm each vertex is, `v`: 0 at the shoulder and off the arms, 1 at the wrist."""
    down = np.zeros(len(body.vertices))
    for side in "lr":
        names = [f"{bone}_{side}" for bone in ("upperarm", "lowerarm", "hand")]
        shoulder, wrist = body.heads[BONES.index(names[0])], body.heads[BONES.index(names[2])]
        along = (body.vertices - shoulder) @ (wrist - shoulder) / ((wrist - shoulder) @ (wrist - shoulder))
        share = body.skin[:, [BONES.index(name) for name in names]].sum(axis=1)
        down += np.maximum(along, 0) * share
    return down


def _swell(rng: np.random.Generator, body: Body, points: np.ndarray, look: np.ndarray) -> np.ndarray:
    """How far cloth, hair and soles stand off the skin, mm: `v`."""
    z, down = points[:, 2], points[:, 3]
    on_arm = down > 0.08
    on_head = body.skin[:, BONES.index("head")] > 0.6
    swell = np.zeros(len(z))
    shirt = (on_arm & (down < look[SLEEVE])) | (~on_arm & (z > look[HEM]) & (z < look[COLLAR]) & ~on_head)
    legs = ~on_arm & (z <= look[HEM]) & (z > look[LEG_END])
    swell[shirt] = rng.uniform(4, 16)
    # Trousers widen towards the floor.
    flare = (look[HEM] - z) / look[HEM]
    swell[legs] = (rng.uniform(4, 14) + rng.uniform(-2, 12) * flare)[legs]
    swell[~on_arm & (z < look[SHOE_TOP])] = 5
    hair = on_head & (z > look[HAIR_FRONT] - 25) & (points[:, 1] > look[NOSE_Y] + 15)
    swell[hair] = rng.uniform(6, 20)
    return swell


@numba.njit(cache=True)
def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals `v 3`, float64, of a mesh whose triangles run counter-clockwise."""
    normals = np.zeros((len(vertices), 3))
    for a, b, c in faces:
        ux, uy, uz = vertices[b] - vertices[a]
        wx, wy, wz = vertices[c] - vertices[a]
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for corner in (a, b, c):
            normals[corner, 0] += nx
            normals[corner, 1] += ny
            normals[corner, 2] += nz
    for v in range(len(normals)):
        x, y, z = normals[v]
        normals[v] /= max(1e-9, (x * x + y * y + z * z) ** 0.5)
    return normals


@numba.njit(cache=True, fastmath=True)
def _is_print(kind: int, u: float, v: float) -> float:
    """How much of the print's colour a shirt shows at (u, v), in units of the print: 0 to 1."""
    if kind == STRIPES:
        return 1.0 if v - np.floor(v) < 0.4 else 0.0
    if kind == CHECKS:
        return 0.5 * ((1.0 if v - np.floor(v) < 0.45 else 0.0) + (1.0 if u - np.floor(u) < 0.45 else 0.0))
    if kind == CLOUDS:
        return 1.0 if noise(u, v, 5) > 0.1 else 0.0
    if kind == SPOTS:
        a, b = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
        return 1.0 if a * a + b * b < 0.07 else 0.0
    return 0.0


@numba.njit(cache=True, fastmath=True)
def _face(look: np.ndarray, x: float, y: float, z: float, colour: np.ndarray) -> float:
    """The head at a rest point: writes its colour, returns a factor on the brightness (eyes, brows, mouth)."""
    back = (y - look[NOSE_Y]) / (look[BACK_Y] - look[NOSE_Y])
    t = min(1.0, max(0.0, (back - 0.32) / 0.22))
    line = look[HAIR_FRONT] + (look[HAIR_BACK] - look[HAIR_FRONT]) * t * t * (3 - 2 * t)
    if z > line:
        colour[:] = look[HAIR : HAIR + 3]
        return 1 + 0.25 * noise(x / 6, z / 40, 3)
    colour[:] = look[SKIN : SKIN + 3]
    if back > 0.45:
        return 1.0
    aside, up = abs(x) - 32, z - look[NOSE_Z] - 33
    if aside * aside / 150 + up * up / 26 < 1:
        return 0.25
    if abs(aside) < 17 and abs(up - 17) < 4:
        return 0.45
    if abs(x) < 24 and abs(up + 75) < 5:
        colour[1] *= 0.6
        colour[2] *= 0.6
        return 0.85
    return 1.0


@numba.njit(cache=True, fastmath=True)
def colour_at(look: np.ndarray, x: float, y: float, z: float, down: float, on_front: bool, colour: np.ndarray) -> float:
    """The colour of a person at a rest point (mm) `down` an arm: written to `colour`; returns a brightness factor."""
    if down > 0.06:
        if down > look[SLEEVE]:
            colour[:] = look[SKIN : SKIN + 3]
            return 1.0
    elif z > look[COLLAR] - (look[VEE] * max(0.0, 1 - abs(x) / 45) if on_front else 0.0):
        return _face(look, x, y, z, colour)
    elif z < look[SHOE_TOP]:
        colour[:] = look[SHOES : SHOES + 3]
        return 1.0 if z > 18 else 0.6
    elif z < look[LEG_END]:
        colour[:] = look[SKIN : SKIN + 3]
        return 1.0
    elif z < look[HEM]:
        colour[:] = look[TROUSERS : TROUSERS + 3]
        return (1 + look[WRINKLE] * noise(x / 50, z / 90, 7)) * (0.75 if look[HEM] - z < 9 else 1.0)
    share = _is_print(int(look[KIND]), x / look[SIZE], z / look[SIZE])
    for k in range(3):
        colour[k] = look[SHIRT + k] * (1 - share) + look[PRINT + k] * share
    return 1 + look[WRINKLE] * noise(x / 60, z / 80, 11)
