"""Whether joints stand in Human3.6M's order, told from poses whose bones have human lengths. Pure functions.

A swapped pair of joints often leaves every bone plausible. What gives it away: a bone of one person keeps its length,
the pelvis lies between the hips, knees bend backwards only in a mirror. No rule here depends on a posture.
"""

from typing import Final

import numpy as np

from poselib.skeleton import H36M_JOINTS, PARENTS, ROOT

CHILDREN: Final = np.array([child for child, parent in enumerate(PARENTS) if parent >= 0])
PARENTS_OF: Final = np.array([parent for parent in PARENTS if parent >= 0])

STRETCH: Final = 0.1
"""A bone of one person keeps its length: half of the frames differ from the median by less than this share."""
CROSSED_STRETCH: Final = 0.02
"""The same where right and left limbs reach for each other's joints, which folded arms and crossed legs do too."""
CROSSED: Final = 1.1
"""Limbs longer by this factor than if their ends changed sides reach for each other's joints."""
PELVIS_OFF_MM: Final = 80.0
"""The pelvis lies this near to the middle of the hips."""
BACKWARDS: Final = -0.3
"""Mean cosine between the axes about which knees bend and the axis from right to left hip; a person's is near 1."""
BENT: Final = 0.1
"""Sine of the mean angle from which on knees tell which way they bend."""
_LIMBS: Final = ((1, 2, 4, 5), (2, 3, 5, 6), (14, 15, 11, 12), (15, 16, 12, 13))
"""Right bone and left bone, each from joint to joint."""
_RIGHT_HIP, _LEFT_HIP, _THORAX, _NECK, _HEAD, _LEFT_SHOULDER, _RIGHT_SHOULDER = 1, 4, 8, 9, 10, 11, 14


def bone_lengths(joints_mm: np.ndarray) -> np.ndarray:
    """Lengths `... 16` of the bones that end in joints 1 to 16: `... 17 3`, in the unit of the joints."""
    return _distance(joints_mm, CHILDREN, PARENTS_OF)


def joint_name(joint: int) -> str:
    """For messages."""
    return H36M_JOINTS[joint].replace("_", " ")


def order_fault(joints_mm: np.ndarray) -> str:
    """What tells that the joints of a person's finite poses `f 17 3` mm are not in our order, or an empty text."""
    return _stretched(joints_mm) or _misplaced(joints_mm) or _sides(joints_mm)


def _stretched(joints_mm: np.ndarray) -> str:
    lengths = bone_lengths(joints_mm)
    median = np.median(lengths, axis=0)
    stretch = np.median(np.abs(lengths - median), axis=0) / median
    allowed = np.full(len(stretch), STRETCH)
    for right, right_end, left, left_end in _LIMBS:
        own = _distance(joints_mm, right, right_end) + _distance(joints_mm, left, left_end)
        other = _distance(joints_mm, right, left_end) + _distance(joints_mm, left, right_end)
        if np.median(own / other) > CROSSED:
            allowed[[right_end - 1, left_end - 1]] = CROSSED_STRETCH
    if (stretch <= allowed).all():
        return ""
    bone = int(np.argmax(stretch / allowed))
    low, high = np.percentile(lengths[:, bone], (10, 90))
    name = joint_name(CHILDREN[bone])
    return f"the bone to the {name} changes its length, {low:.4g} to {high:.4g} mm; another joint order?"


def _misplaced(joints_mm: np.ndarray) -> str:
    """Trunk and head: what must lie near to what."""
    between_hips = (joints_mm[:, _RIGHT_HIP] + joints_mm[:, _LEFT_HIP]) / 2
    off = float(np.median(np.linalg.norm(joints_mm[:, ROOT] - between_hips, axis=-1)))
    if off > PELVIS_OFF_MM:
        return f"the pelvis lies {off:.0f} mm beside the middle of the hips; another joint order?"
    between_shoulders = (joints_mm[:, _RIGHT_SHOULDER] + joints_mm[:, _LEFT_SHOULDER]) / 2
    thorax, neck = (np.linalg.norm(joints_mm[:, joint] - between_shoulders, axis=-1) for joint in (_THORAX, _NECK))
    if np.median(thorax - neck) > 0:
        return "the neck lies nearer to the shoulders than the thorax does; another joint order?"
    if np.median(_distance(joints_mm, _THORAX, _NECK) - _distance(joints_mm, _THORAX, _HEAD)) > 0:
        return "the head top lies nearer to the thorax than the neck does; another joint order?"
    return ""


def _sides(joints_mm: np.ndarray) -> str:
    """Left and right."""
    hips = _unit(joints_mm[:, _LEFT_HIP] - joints_mm[:, _RIGHT_HIP])
    shoulders = _unit(joints_mm[:, _LEFT_SHOULDER] - joints_mm[:, _RIGHT_SHOULDER])
    if (hips * shoulders).sum(axis=-1).mean() < 0:
        return "hips and shoulders disagree on which side is left: left and right are swapped in one of them"
    knee_axes = np.concatenate(
        [
            np.cross(
                _unit(joints_mm[:, hip + 1] - joints_mm[:, hip]), _unit(joints_mm[:, hip + 2] - joints_mm[:, hip + 1])
            )
            for hip in (_RIGHT_HIP, _LEFT_HIP)
        ]
    )  # shins swing back about the axis from right to left, however the person sits or lies
    bent = np.linalg.norm(knee_axes, axis=-1)
    along = (knee_axes * np.concatenate([hips, hips])).sum(axis=-1)
    if bent.mean() > BENT and along.sum() < BACKWARDS * bent.sum():
        return "the knees bend backwards: left and right are swapped, or an axis is mirrored"
    return ""


def _distance(joints_mm: np.ndarray, first: int | np.ndarray, second: int | np.ndarray) -> np.ndarray:
    return np.linalg.norm(joints_mm[..., first, :] - joints_mm[..., second, :], axis=-1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors `f 3` of length 1; those of length 0 stay."""
    sizes = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(sizes > 0, sizes, 1.0)
