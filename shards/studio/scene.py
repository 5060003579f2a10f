"""Backgrounds and props: rooms with random walls, floors, lights and furniture."""

from dataclasses import dataclass

import cv2
import numpy as np

from shards.studio.cameras import StudioCamera, rays
from shards.studio.raycast import (
    BOX_COLUMNS,
    BRICKS,
    CHECKS,
    CLOUDS,
    KIND,
    MATERIAL_COLUMNS,
    NOISE,
    OTHER,
    PLAIN,
    SIZE,
    SPOTS,
    STRIPES,
    cast,
)
from shards.studio.render import Backdrop


@dataclass(frozen=True, eq=False)
class Prop:
    """A thing made of boxes: `b BOX_COLUMNS` mm, world, and one material for all of them."""

    boxes: np.ndarray
    material: np.ndarray


def draw_backdrop(rng: np.random.Generator, camera: StudioCamera, props: tuple[Prop, ...] = ()) -> Backdrop:
    """Draw a room around a camera and look at it, with `props` in it; each call is another room."""
    outdoors = rng.random() < 0.2
    room = _draw_room(rng, camera.position, outdoors)
    furniture = _draw_furniture(rng, camera, room)
    things = (*props, *furniture)
    boxes = np.concatenate([np.zeros((0, BOX_COLUMNS)), *(thing.boxes for thing in things)])
    looks = [draw_material(rng) for _ in range(6)]
    if outdoors:
        looks[:4] = [_sky(rng)] * 4
        looks[5] = looks[0]
    else:
        # Opposite walls look alike more often than not.
        looks[1] = looks[0] if rng.random() < 0.5 else looks[1]
        looks[5][:6] = 0.75 + 0.25 * looks[5][:6]
    for thing in things:
        looks.extend([thing.material] * len(thing.boxes))
    bearing, steep = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(48, 80))
    light = np.array([np.cos(bearing) * np.cos(steep), np.sin(bearing) * np.cos(steep), np.sin(steep)])
    ambient = float(rng.uniform(0.3, 0.7))
    picture, inverse, surface = cast(
        rays(camera), camera.rotation, camera.position, room, boxes, sum(len(prop.boxes) for prop in props),
        np.array(looks), light, ambient, int(rng.integers(1 << 20)),
    )  # fmt: skip
    tint = rng.uniform(0.75, 1.15) * rng.uniform(0.92, 1.08, 3).astype(np.float32)
    picture = cv2.GaussianBlur(np.clip(picture * tint.astype(np.float32), 0, 1), (3, 3), 0.6)
    return Backdrop(picture, inverse, surface, light, ambient)


def draw_material(rng: np.random.Generator) -> np.ndarray:
    """Draw a material: two colours, a pattern and its size."""
    material = np.zeros(MATERIAL_COLUMNS)
    strength = rng.choice([0.05, 0.15, 0.4], p=[0.4, 0.4, 0.2])  # rooms are muted, most of them
    grey, hue = rng.uniform(0.15, 0.95), rng.uniform(0, 1, 3)
    material[:3] = np.clip((1 - strength) * grey + strength * hue, 0.03, 0.98)
    material[OTHER : OTHER + 3] = np.clip(material[:3] + rng.normal(0, 0.05, 3) + rng.normal(0, 0.12), 0.02, 0.98)
    material[KIND] = rng.choice([PLAIN, CHECKS, STRIPES, BRICKS, CLOUDS, SPOTS], p=[0.28, 0.16, 0.16, 0.12, 0.2, 0.08])
    material[SIZE] = np.exp(rng.uniform(np.log(90), np.log(900)))
    material[NOISE] = rng.uniform(0.01, 0.09)
    return material


def _sky(rng: np.random.Generator) -> np.ndarray:
    """Clouds or a wood, far away."""
    material = draw_material(rng)
    material[:3] = rng.choice([[0.55, 0.7, 0.9], [0.8, 0.82, 0.85], [0.25, 0.4, 0.2], [0.6, 0.55, 0.5]])
    material[OTHER : OTHER + 3] = np.clip(material[:3] + rng.normal(0, 0.12, 3), 0, 1)
    material[KIND], material[SIZE] = CLOUDS, rng.uniform(1500, 6000)
    return material


def _draw_room(rng: np.random.Generator, position: np.ndarray, outdoors: bool) -> np.ndarray:
    """Walls that leave room for people in the middle and for the camera: `6` mm, see `raycast.cast`."""
    far = rng.uniform(9000, 25000, 4) if outdoors else rng.uniform(2600, 6500, 4)
    reach = np.abs(position[:2]) + 300
    low = np.where(position[:2] < 0, -np.maximum(far[:2], reach), -far[:2])
    high = np.where(position[:2] > 0, np.maximum(far[2:], reach), far[2:])
    ceiling = rng.uniform(12000, 20000) if outdoors else max(position[2] + 300, rng.uniform(2500, 4500))
    return np.array([low[0], high[0], low[1], high[1], 0.0, ceiling])


def _draw_furniture(rng: np.random.Generator, camera: StudioCamera, room: np.ndarray) -> list[Prop]:
    """Boxes and pictures behind the scene, as the camera sees it: never in front of the people."""
    things = []
    view = -camera.position[:2] / np.linalg.norm(camera.position[:2])
    for _ in range(rng.integers(0, 6)):
        place = np.array([rng.uniform(room[0], room[1]), rng.uniform(room[2], room[3])])
        half = np.array([rng.uniform(150, 700), rng.uniform(120, 450), rng.uniform(200, 1000)])
        if place @ view < 1500 + half[:2].max():
            continue
        hang = rng.uniform(0, 900) if rng.random() < 0.2 else 0.0
        things.append(Prop(box([*place, half[2] + hang], half, rng.uniform(0, np.pi)), draw_material(rng)))
    for axis in (0, 1):
        side = int(view[axis] > 0)
        for _ in range(rng.integers(0, 4)):
            centre = np.array([rng.uniform(room[0], room[1]), rng.uniform(room[2], room[3]), rng.uniform(700, 2200)])
            half = np.array([rng.uniform(150, 900), rng.uniform(150, 900), rng.uniform(150, 700)])
            centre[axis], half[axis] = room[2 * axis + side], 20
            things.append(Prop(box(centre, half, 0.0), draw_material(rng)))
    return things


def box(centre: np.ndarray | list[float], half: np.ndarray | list[float], yaw: float) -> np.ndarray:
    """One box `1 BOX_COLUMNS`: centre and half sizes in mm, turned about z by `yaw` radians."""
    return np.array([[*centre, *half, np.cos(yaw), np.sin(yaw)]])


def draw_seat(rng: np.random.Generator, hips: np.ndarray, top_mm: float, facing: float) -> Prop:
    """A box, stool or chair for hips at `hips` (2, mm) facing `facing` radians, with its seat at `top_mm`."""
    half, kind = rng.uniform(190, 250), rng.choice(["box", "stool", "chair"])
    ahead = np.array([np.sin(facing), -np.cos(facing)])
    # The back edge stays just behind the person's back, whatever the size.
    place = hips + (half - 165) * ahead
    if kind == "box" or top_mm < 150:
        return Prop(box([*place, top_mm / 2], [half, half, top_mm / 2], facing), draw_material(rng))
    right = np.array([-ahead[1], ahead[0]])
    parts = [box([*place, top_mm - 25], [half, half, 25], facing)]
    for along in (-1, 1):
        for across in (-1, 1):
            foot = place + (half - 25) * (along * ahead + across * right)
            parts.append(box([*foot, top_mm / 2 - 25], [22, 22, top_mm / 2 - 25], facing))
    if kind == "chair":
        back = place - (half - 15) * ahead
        high = rng.uniform(180, 280)
        parts.append(box([*back, top_mm + high], [half, 18, high], facing))
    return Prop(np.concatenate(parts), draw_material(rng))


def draw_table(rng: np.random.Generator, place: np.ndarray, facing: float) -> Prop:
    """A table at `place` (2, mm), turned by `facing` radians."""
    half, top = rng.uniform([400, 300], [750, 450]), rng.uniform(680, 780)
    right, ahead = np.array([np.cos(facing), np.sin(facing)]), np.array([-np.sin(facing), np.cos(facing)])
    parts = [box([*place, top - 20], [*half, 20], facing)]
    for along in (-1, 1):
        for across in (-1, 1):
            foot = place + along * (half[0] - 40) * right + across * (half[1] - 40) * ahead
            parts.append(box([*foot, top / 2 - 20], [30, 30, top / 2 - 20], facing))
    return Prop(np.concatenate(parts), draw_material(rng))
