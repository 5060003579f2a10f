"""Bodies: baked shapes, their posing by linear blend skinning, and the clothes they wear.

The canonical pose stands upright, arms hanging, palms inwards, facing -y with z up and the left hand at +x. Every
bone's rotation is given relative to it, so that the same angles mean the same pose on every body.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

BODIES_FILE: Final = Path(__file__).with_name("bodies.npz")

BONES: Final = (
    *("pelvis", "spine_01", "spine_02", "spine_03", "neck_01", "head"),
    *("clavicle_l", "upperarm_l", "lowerarm_l", "hand_l", "clavicle_r", "upperarm_r", "lowerarm_r", "hand_r"),
    *("thigh_l", "calf_l", "foot_l", "thigh_r", "calf_r", "foot_r"),
)
BONE_PARENTS: Final = (-1, 0, 1, 2, 3, 4, 3, 6, 7, 8, 3, 10, 11, 12, 0, 14, 15, 0, 17, 18)

LANDMARK_BONES: Final = (
    *("pelvis", "thigh_r", "calf_r", "foot_r", "thigh_l", "calf_l", "foot_l"),
    *("spine_02", "neck_01", "head", "head"),
    *("upperarm_l", "lowerarm_l", "hand_l", "upperarm_r", "lowerarm_r", "hand_r"),
    *("foot_r", "foot_r", "foot_l", "foot_l", "hand_l", "hand_l", "hand_r", "hand_r"),
)
"""The bone that carries each landmark: the 17 joints in Human3.6M's order, then right toe base and tip, left toe base
and tip, left thumb and finger tip, right thumb and finger tip."""

# Where a limb points in the canonical pose.
_HANGING: Final = {"upperarm": "lowerarm", "lowerarm": "hand", "thigh": "calf", "calf": "foot"}


@dataclass(frozen=True, eq=False)
class Body:
    """One person's rest shape, in millimetres.

    Attributes:
        vertices: `v 3`, standing on z = 0.
        faces: `f 3` int32.
        heads: `n 3`, where each of `BONES` begins.
        landmarks: `p 3`, see `LANDMARK_BONES`.
        carriers: `p`, the bone of each landmark.
        skin: `v n`, skin weights, each row sums to 1.
        upright: `n 3 3`, rotations from the rest pose to the canonical pose.
    """

    vertices: np.ndarray
    faces: np.ndarray
    heads: np.ndarray
    landmarks: np.ndarray
    carriers: np.ndarray
    skin: np.ndarray
    upright: np.ndarray

    @property
    def stature(self) -> float:
        """Height in mm."""
        return float(self.vertices[:, 2].max())

    def pose(self, rotations: np.ndarray, vertices: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Pose the body over several frames.

        Args:
            rotations: `t n 3 3`, each bone's rotation relative to its parent, from the canonical pose.
            vertices: `v 3` mm, another skin over the same bones, such as clothes; None for the bare body.

        Returns:
            Vertices `t v 3` and landmarks `t p 3` in mm, with the pelvis bone at the origin.
        """
        skin_rest = self.vertices if vertices is None else vertices
        turned: list[np.ndarray] = []
        offsets: list[np.ndarray] = []
        places: list[np.ndarray] = []
        linear: list[np.ndarray] = []
        for bone, parent in enumerate(BONE_PARENTS):
            local = rotations[:, bone]
            turned.append(local if parent < 0 else turned[parent] @ local)
            linear.append(turned[bone] @ self.upright[bone])
            if parent < 0:
                places.append(np.zeros((len(rotations), 3)))
            else:
                places.append(places[parent] + linear[parent] @ (self.heads[bone] - self.heads[parent]))
            offsets.append(places[bone] - linear[bone] @ self.heads[bone])
        matrices = np.stack(linear, axis=1)
        shifts = np.stack(offsets, axis=1)
        carried = np.einsum("tpij,pj->tpi", matrices[:, self.carriers], self.landmarks) + shifts[:, self.carriers]
        # One matrix product per frame blends the 12 numbers of each bone's motion over all vertices.
        motion = np.concatenate([matrices.reshape(*matrices.shape[:2], 9), shifts], axis=2)
        blended = self.skin @ motion
        posed = np.einsum("tvij,vj->tvi", blended[..., :9].reshape(*blended.shape[:2], 3, 3), skin_rest)
        return posed + blended[..., 9:], carried


def _rotation_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The smallest rotation `3 3` that takes one direction onto another, not opposite one. Source: Rodrigues."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    x, y, z = np.cross(start, end)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + start @ end)


def _upright(heads: np.ndarray) -> np.ndarray:
    """Rotations `n 3 3` from the rest pose `n 3` to the canonical one."""
    rotations = np.tile(np.eye(3), (len(BONES), 1, 1))
    for side in "lr":
        for bone, child in _HANGING.items():
            index = BONES.index(f"{bone}_{side}")
            along = heads[BONES.index(f"{child}_{side}")] - heads[index]
            rotations[index] = _rotation_between(along, np.array([0.0, 0.0, -1.0]))
        rotations[BONES.index(f"hand_{side}")] = rotations[BONES.index(f"lowerarm_{side}")]
    return rotations


@cache
def load_bodies() -> dict[str, Body]:
    """Every baked body by name: `S1` ... `S11` and `extra1` onwards."""
    with np.load(BODIES_FILE, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    skin = np.zeros((arrays["indices"].shape[0], len(BONES)))
    np.add.at(skin, (np.arange(len(skin))[:, None], arrays["indices"]), arrays["weights"] / 255)
    bodies = {}
    for number, name in enumerate(arrays["names"]):
        vertices, heads, landmarks = (arrays[key][number] / 10 for key in ("vertices", "heads", "landmarks"))
        floor = np.array([0, 0, vertices[:, 2].min()])
        bodies[str(name)] = Body(
            vertices=vertices - floor,
            faces=arrays["faces"].astype(np.int32),
            heads=heads - floor,
            landmarks=landmarks - floor,
            carriers=arrays["carriers"].astype(np.int64),
            skin=skin,
            upright=_upright(heads),
        )
    return bodies
