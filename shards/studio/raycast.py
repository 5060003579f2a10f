"""The static part of a picture: a room of textured planes and boxes, one ray per pixel."""

import math

import numba
import numpy as np

# Columns of a material: two colours (rgb, 0 to 1), kind of pattern, size of the pattern in mm, strength of noise.
COLOUR, OTHER, KIND, SIZE, NOISE = 0, 3, 6, 7, 8
MATERIAL_COLUMNS = 9
PLAIN, CHECKS, STRIPES, BRICKS, CLOUDS, SPOTS = range(6)

# Columns of a box: centre (3), half size (3), cosine and sine of its yaw.
BOX_COLUMNS = 8
ROOM_FACES = 6
FLOOR = 4


@numba.njit(cache=True, fastmath=True)
def _hash(x: int, y: int, seed: int) -> float:
    """A number in 0..1 for a lattice point."""
    n = (x * 374761393 + y * 668265263 + seed * 974634811) & 0x7FFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65535.0


@numba.njit(cache=True, fastmath=True)
def noise(u: float, v: float, seed: int) -> float:
    """Smooth value noise, -1 to 1, of period about 1."""
    x, y = math.floor(u), math.floor(v)
    a, b = u - x, v - y
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    low = _hash(x, y, seed) * (1 - a) + _hash(x + 1, y, seed) * a
    high = _hash(x, y + 1, seed) * (1 - a) + _hash(x + 1, y + 1, seed) * a
    return 2 * (low * (1 - b) + high * b) - 1


@numba.njit(cache=True, fastmath=True)
def _pattern(kind: int, u: float, v: float, seed: int) -> float:
    """How much of the second colour a surface shows at (u, v), in units of the pattern's size: 0 to 1."""
    if kind == CHECKS:
        return float((math.floor(u) + math.floor(v)) & 1)
    if kind == STRIPES:
        return _hash(math.floor(u), 0, seed)
    if kind == BRICKS:
        row = math.floor(v * 2)
        along = u + 0.5 * (row & 1)
        joint = (v * 2 - row) < 0.08 or (along - math.floor(along)) < 0.04
        return 1.0 if joint else 0.35 * _hash(math.floor(along), row, seed)
    if kind == CLOUDS:
        return 0.5 + 0.5 * noise(u, v, seed)
    if kind == SPOTS:
        a, b = u - math.floor(u) - 0.5, v - math.floor(v) - 0.5
        return 1.0 if a * a + b * b < 0.09 else 0.0
    return 0.0


@numba.njit(cache=True, fastmath=True)
def _hit_box(box: np.ndarray, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float) -> tuple:
    """Slab test: distance to a box from outside (inf for a miss) and the axis and side that were hit."""
    px, py, pz = ox - box[0], oy - box[1], oz - box[2]
    c, s = box[6], box[7]
    px, py = c * px + s * py, c * py - s * px
    ex, ey = c * dx + s * dy, c * dy - s * dx
    near, far, axis, side = -1e30, 1e30, 0, 1.0
    for k in range(3):
        p = px if k == 0 else (py if k == 1 else pz)
        e = ex if k == 0 else (ey if k == 1 else dz)
        if abs(e) < 1e-9:
            e = 1e-9
        enter = (-math.copysign(box[3 + k], e) - p) / e
        leave = (math.copysign(box[3 + k], e) - p) / e
        if enter > near:
            near, axis, side = enter, k, -math.copysign(1.0, e)
        far = min(far, leave)
    if near > far or near < 1.0:
        return 1e30, 0, 1.0
    return near, axis, side


@numba.njit(cache=True, fastmath=True)
def _in_shadow(boxes: np.ndarray, count: int, x: float, y: float, z: float, light: np.ndarray) -> float:
    """The share of light that boxes leave at a point: 0.55 behind one, else 1."""
    for b in range(count):
        distance, _, _ = _hit_box(boxes[b], x, y, z, light[0], light[1], light[2])
        if distance < 1e29:
            return 0.55
    return 1.0


@numba.njit(cache=True, fastmath=True)
def _leave_room(room: np.ndarray, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float) -> tuple:
    """Where a ray meets the room from inside: distance, axis, side that its normal points to, face."""
    # Every direction leaves the room through one plane of each axis; the nearest is what is seen.
    tx = ((room[1] if dx > 0 else room[0]) - ox) / (dx if abs(dx) > 1e-9 else 1e-9)
    ty = ((room[3] if dy > 0 else room[2]) - oy) / (dy if abs(dy) > 1e-9 else 1e-9)
    tz = ((room[5] if dz > 0 else room[4]) - oz) / (dz if abs(dz) > 1e-9 else 1e-9)
    if tx < ty and tx < tz:
        return tx, 0, -math.copysign(1.0, dx), 1 if dx > 0 else 0
    if ty < tz:
        return ty, 1, -math.copysign(1.0, dy), 3 if dy > 0 else 2
    return tz, 2, -math.copysign(1.0, dz), 5 if dz > 0 else FLOOR


@numba.njit(cache=True, fastmath=True)
def _corner(room: np.ndarray, axis: int, x: float, y: float, z: float) -> float:
    """How far a point of the room's face is from the nearest edge of the room, mm."""
    nearest = 1e9
    if axis != 0:
        nearest = min(nearest, x - room[0], room[1] - x)
    if axis != 1:
        nearest = min(nearest, y - room[2], room[3] - y)
    if axis != 2:
        nearest = min(nearest, z - room[4], room[5] - z)
    return nearest


@numba.njit(cache=True, fastmath=True)
def _balls(boxes: np.ndarray, position: np.ndarray) -> np.ndarray:
    """From a camera to each box (3), and the squared length of the tangent to the ball around it: `b 4`."""
    balls = np.empty((len(boxes), 4))
    for b in range(len(boxes)):
        balls[b, :3] = boxes[b, :3] - position
        balls[b, 3] = np.sum(balls[b, :3] ** 2) - np.sum(boxes[b, 3:6] ** 2)
    return balls


@numba.njit(cache=True, fastmath=True)
def _hit_boxes(
    boxes: np.ndarray,
    balls: np.ndarray,
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    t: float,
    axis: int,
    side: float,
    hit: int,
) -> tuple:
    """The nearest box that a ray meets before `t`: distance, axis, side, surface; else what it was given."""
    length2 = dx * dx + dy * dy + dz * dz
    for b in range(len(boxes)):
        # Most rays miss the ball around a box by far.
        along = dx * balls[b, 0] + dy * balls[b, 1] + dz * balls[b, 2]
        if along < 0 or balls[b, 3] * length2 > along * along:
            continue
        distance, box_axis, box_side = _hit_box(boxes[b], ox, oy, oz, dx, dy, dz)
        if distance < t:
            t, axis, side, hit = distance, box_axis, box_side, ROOM_FACES + b
    return t, axis, side, hit


@numba.njit(cache=True, fastmath=True)
def _surface(
    material: np.ndarray, seed: int, u: float, v: float, facing: float, ambient: float, colour: np.ndarray
) -> float:
    """The colour of a material at (u, v) mm, written to `colour`; returns how bright it is."""
    share = _pattern(int(material[KIND]), u / material[SIZE], v / material[SIZE], seed)
    for k in range(3):
        colour[k] = material[COLOUR + k] * (1 - share) + material[OTHER + k] * share
    grain = noise(u / 90, v / 90, seed) + 0.7 * noise(u / 700, v / 700, seed + 31)
    return ambient + (1 - ambient) * (0.35 + 0.65 * max(0.0, facing)) + material[NOISE] * grain


@numba.njit(cache=True, fastmath=True)
def cast(
    rays: np.ndarray,
    rotation: np.ndarray,
    position: np.ndarray,
    room: np.ndarray,
    boxes: np.ndarray,
    shading: int,
    materials: np.ndarray,
    light: np.ndarray,
    ambient: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Look at a room from inside.

    Args:
        rays: `h w 2` float32, see `cameras.rays`.
        rotation: `3 3` float64, world to camera.
        position: `3` mm, the camera, inside the room.
        room: `6` mm: low x, high x, low y, high y, floor, ceiling.
        boxes: `b BOX_COLUMNS`.
        shading: how many of the first boxes throw shadows on the floor.
        materials: `6 + b MATERIAL_COLUMNS`; the first six are the room's, in the order of `room`.
        light: `3`, unit vector to the light.
        ambient: the share of light that comes from everywhere.
        seed: of the noise.

    Returns:
        Picture `h w 3` float32 0 to 1, 1 / depth `h w` float32 (1/mm), surface `h w` int16: 0 to 5 the room's faces,
        6 onwards the boxes.
    """
    height, width = rays.shape[:2]
    picture = np.empty((height, width, 3), np.float32)
    inverse = np.empty((height, width), np.float32)
    surface = np.empty((height, width), np.int16)
    colour = np.zeros(3)
    ox, oy, oz = position
    balls = _balls(boxes, position)
    for row in range(height):
        for column in range(width):
            rx, ry = rays[row, column]
            dx = rotation[0, 0] * rx + rotation[1, 0] * ry + rotation[2, 0]
            dy = rotation[0, 1] * rx + rotation[1, 1] * ry + rotation[2, 1]
            dz = rotation[0, 2] * rx + rotation[1, 2] * ry + rotation[2, 2]
            t, axis, side, hit = _leave_room(room, ox, oy, oz, dx, dy, dz)
            t, axis, side, hit = _hit_boxes(boxes, balls, ox, oy, oz, dx, dy, dz, t, axis, side, hit)
            x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
            dark, cos, sin, u, v = 1.0, 1.0, 0.0, x, y
            if hit < ROOM_FACES:
                # Corners of rooms are darker.
                dark = 1 - 0.3 * math.exp(-_corner(room, axis, x, y, z) / 220)
            else:
                box = boxes[hit - ROOM_FACES]
                cos, sin = box[6], box[7]
                u, v = cos * (x - box[0]) + sin * (y - box[1]), cos * (y - box[1]) - sin * (x - box[0])
            if hit == FLOOR:
                dark *= _in_shadow(boxes, shading, x, y, z + 1, light)
            # Walls are textured over one horizontal direction and z, floors over both horizontal ones.
            facing = side * light[2]
            if axis == 0:
                facing, u, v = side * (cos * light[0] + sin * light[1]), v, z
            elif axis == 1:
                facing, v = side * (cos * light[1] - sin * light[0]), z
            bright = dark * _surface(materials[hit], seed + hit, u, v, facing, ambient, colour)
            for k in range(3):
                picture[row, column, k] = min(1.0, max(0.0, colour[k] * bright))
            inverse[row, column] = 1 / t
            surface[row, column] = hit
    return picture, inverse, surface
