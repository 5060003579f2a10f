"""A take: a dressed person doing a clip on the studio's floor, with the seat it needs."""

from dataclasses import dataclass

import numpy as np

from shards.studio.body import BONES, Body
from shards.studio.clothes import Dress
from shards.studio.motion import Clip
from shards.studio.scene import Prop, draw_seat

_ANKLES = (3, 6)


@dataclass(frozen=True, eq=False)
class Take:
    """What the cameras film.

    Attributes:
        body: of the person.
        dress: what it wears.
        vertices: `t v 3` mm, world, dressed.
        landmarks: `t p 3` mm, world, see `body.LANDMARK_BONES`.
        props: what stands on the floor.
    """

    body: Body
    dress: Dress
    vertices: np.ndarray
    landmarks: np.ndarray
    props: tuple[Prop, ...]


def stage(rng: np.random.Generator, body: Body, dress: Dress, clip: Clip) -> Take:
    """Let a body do a clip: its lowest point touches the floor, and a seat stands under who sits on one."""
    vertices, landmarks = body.pose(clip.rotations, dress.vertices)
    held = landmarks[:, _ANKLES].mean(axis=1) if clip.stance == "standing" else landmarks[:, 0]
    moved = np.concatenate([clip.ground_mm - held[:, :2], -vertices[:, :, 2].min(axis=1)[:, None]], axis=1)
    vertices, landmarks = vertices + moved[:, None], landmarks + moved[:, None]
    props: tuple[Prop, ...] = ()
    if clip.stance == "on a seat":
        facing = float(clip.heading.mean())
        props = (draw_seat(rng, clip.ground_mm.mean(axis=0), _underside(body, vertices, landmarks), facing),)
    return Take(body, dress, vertices, landmarks, props)


def _underside(body: Body, vertices: np.ndarray, landmarks: np.ndarray) -> float:
    """The lowest height in mm that what one sits on reaches in any frame."""
    sitting = body.skin[:, [BONES.index(bone) for bone in ("pelvis", "thigh_l", "thigh_r")]].sum(axis=1) > 0.7
    near = np.linalg.norm(vertices[:, :, :2] - landmarks[:, :1, :2], axis=2) < 180
    heights = np.where(near & sitting, vertices[:, :, 2], np.inf)
    return float(max(heights.min() + 10, 60))
