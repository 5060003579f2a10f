"""The pelvis' depth from how long a person's limbs are, where nothing better is known."""

from typing import Final

import numpy as np
from jaxtyping import Float

from poselib.skeleton import H36M_JOINTS

PROPORTIONS: Final = {"hip": 0.245, "knee": 0.246, "shoulder": 0.186, "elbow": 0.146}
"""Thigh, shank, upper arm and forearm as shares of the stature, by the joint that each begins at. Source: Drillis and
Contini, "Body segment parameters", 1966, as printed in Winter, "Biomechanics and Motor Control of Human Movement"."""

NEAREST_MM: Final = 300.0
FARTHEST_MM: Final = 100_000.0
_ENDS: Final = {"hip": "knee", "knee": "ankle", "shoulder": "elbow", "elbow": "wrist"}
_LIMBS: Final = tuple(
    (H36M_JOINTS.index(f"{side}_{start}"), H36M_JOINTS.index(f"{side}_{end}"), PROPORTIONS[start])
    for side in ("right", "left")
    for start, end in _ENDS.items()
)
_GUESSES: Final = 200
_STEPS: Final = 12


def depth_from_limbs(
    joints_px: Float[np.ndarray, "n j 2"],
    depth_mm: Float[np.ndarray, "n j"],
    intrinsics: Float[np.ndarray, "n 4"],
    stature_mm: float = 1700.0,
) -> Float[np.ndarray, " n"]:
    """Depths of the pelvis, mm, at which arms and legs come nearest to the lengths of a person of this stature.

    At depth d of the pelvis a limb is the vector a d + b: its ends lie on known rays, at d plus known differences. The
    answer is the least squares of the eight lengths, so limbs that point at the camera hardly count. It is off in
    proportion to the person's true stature.

    Args:
        joints_px: `n 17 2` px.
        depth_mm: `n 17` mm from the pelvis along the camera's axis.
        intrinsics: `n 4`, fx fy cx cy in px.
        stature_mm: assumed height of the person.

    Returns:
        `n` mm, with every joint in front of the camera.
    """
    starts, ends, shares = (np.array(column) for column in zip(*_LIMBS, strict=True))
    lengths = shares * stature_mm
    plane = (joints_px - intrinsics[:, None, 2:]) / intrinsics[:, None, :2]
    rays = np.concatenate([plane, np.ones_like(plane[..., :1])], axis=-1)
    offsets = rays * depth_mm[..., None]
    a, b = (values[:, ends] - values[:, starts] for values in (rays, offsets))
    nearest = np.maximum(NEAREST_MM, 100.0 - depth_mm.min(axis=1))
    # One guess among many first: the sum of squares may have two valleys.
    guesses = nearest[:, None] * (FARTHEST_MM / nearest[:, None]) ** np.linspace(0, 1, _GUESSES)
    at_guesses = np.linalg.norm(a[:, None] * guesses[:, :, None, None] + b[:, None], axis=-1)
    best = ((at_guesses - lengths) ** 2).sum(axis=-1).argmin(axis=1)
    found = guesses[np.arange(len(guesses)), best]
    for _ in range(_STEPS):  # Gauss-Newton in one unknown
        limbs = a * found[:, None, None] + b
        length = np.maximum(np.linalg.norm(limbs, axis=-1), 1e-9)
        slope = (a * limbs).sum(axis=-1) / length
        step = ((length - lengths) * slope).sum(axis=1) / np.maximum((slope**2).sum(axis=1), 1e-12)
        found = np.clip(found - step, nearest, FARTHEST_MM)
    return found
