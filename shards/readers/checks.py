"""What raw 3D annotations must obey before they are believed: camera convention, unit, joint order. Pure functions.

Copies of the data disagree on how a camera's place is stored and in which unit; a wrong guess gives labels that look
fine in a table and lie beside the person in the picture. So nothing is taken on trust: poses are projected.
"""

from typing import Final, Literal

import numpy as np

from poselib.camera import project, world_to_camera
from poselib.skeleton import H36M_JOINTS, MIRROR_PAIRS, ROOT
from shards.readers.joint_order import CHILDREN, PARENTS_OF, bone_lengths, joint_name, order_fault

Convention = Literal["position", "translation"]
"""What the vector beside R is: the camera's `position` T in the world, or the `translation` t = -R T."""

FORMULAS: Final[dict[Convention, str]] = {"position": "X_cam = R (X - T)", "translation": "X_cam = R X + t"}

BONE_RANGES_MM: Final = {
    "hip": (60, 250),
    "knee": (280, 650),
    "ankle": (280, 650),
    "spine": (80, 400),
    "thorax": (100, 550),
    "neck": (40, 250),
    "head_top": (50, 300),
    "shoulder": (70, 300),
    "elbow": (170, 450),
    "wrist": (150, 400),
}
"""Length of the bone that ends in each joint, of adults from small to tall, with room for other landmarks."""

UNITS_MM: Final = {"metres": 1000.0, "centimetres": 10.0, "inches": 25.4}
ASYMMETRY: Final = 0.15
"""Left and right limb bones of a person may differ by this share of the longer."""
CENTRE_OFF: Final = 0.05
"""A principal point lies this near to the middle of its picture, as a share of the side; Human3.6M's within 0.02."""
FRAME_SLACK: Final = 1.5
"""How much farther than `BONE_RANGES_MM` a bone of a single frame may lie; beyond, the frame is damaged."""
IN_PICTURE: Final = 0.5
"""A convention holds if it puts at least this share of the poses into the picture."""
SAME_PX: Final = 1.0
POSES_TRIED: Final = 64

_LOW, _HIGH = np.array(
    [BONE_RANGES_MM[H36M_JOINTS[child].removeprefix("right_").removeprefix("left_")] for child in CHILDREN], float
).T
_LIMB_ENDS: Final = ("knee", "ankle", "elbow", "wrist")
_RIGHT, _LEFT = np.array(
    [[pair[side] - 1 for pair in MIRROR_PAIRS if H36M_JOINTS[pair[0]].endswith(_LIMB_ENDS)] for side in (0, 1)]
)
"""Rows of limbs among the bones; hips and shoulders are too short to compare."""


def skeleton_fault(joints_mm: np.ndarray) -> str:
    """What is wrong with a person's poses as a whole, or an empty text: their unit, joint order or symmetry.

    Args:
        joints_mm: `f 17 3`, world or camera frame; frames that are not finite are left out.
    """
    finite = joints_mm[np.isfinite(joints_mm).all(axis=(1, 2))]
    if not len(finite):
        return "no pose is finite"
    lengths = np.median(bone_lengths(finite), axis=0)
    wrong = (lengths < _LOW) | (lengths > _HIGH)
    if wrong.any():
        thigh = f"a thigh measures {lengths[1]:.4g}, where 280 to 650 mm are human"
        for unit, factor in UNITS_MM.items():
            if ((lengths * factor >= _LOW) & (lengths * factor <= _HIGH)).all():
                return f"the poses look like {unit}, not millimetres: {thigh}"
        bone = int(np.argmax(wrong))
        return (
            f"the poses are no person in millimetres and in this joint order: the bone from "
            f"{joint_name(PARENTS_OF[bone])} to {joint_name(CHILDREN[bone])} measures {lengths[bone]:.4g}, "
            f"not {_LOW[bone]:.0f} to {_HIGH[bone]:.0f}"
        )
    right, left = lengths[_RIGHT], lengths[_LEFT]
    uneven = np.abs(right - left) / np.maximum(right, left)
    if uneven.max() > ASYMMETRY:
        pair = int(np.argmax(uneven))
        names = [joint_name(CHILDREN[side[pair]]) for side in (_RIGHT, _LEFT)]
        return (
            f"left and right differ by {uneven[pair]:.0%}: the bone to the {names[0]} measures {right[pair]:.4g} mm, "
            f"to the {names[1]} {left[pair]:.4g} mm; another joint order?"
        )
    return order_fault(finite)


def size_fault(intrinsics: np.ndarray, size: tuple[int, int]) -> str:
    """Why a picture of `size` (width, height in px) cannot be what a camera `4` (fx fy cx cy, px) saw, or nothing.

    Pictures that were scaled or cropped after the calibration would take labels beside the person.
    """
    off = np.abs(intrinsics[2:] / size - 0.5)
    if (off <= CENTRE_OFF).all():
        return ""
    return (
        f"the picture is {size[0]}x{size[1]}, its camera's principal point lies at "
        f"({intrinsics[2]:.0f}, {intrinsics[3]:.0f}): scaled or cropped after the calibration"
    )


def frame_fault(joints_mm: np.ndarray) -> str:
    """What is wrong with one pose `17 3` mm, or an empty text: not finite, or a bone that no person has."""
    if not np.isfinite(joints_mm).all():
        return "the pose is not finite"
    lengths = bone_lengths(joints_mm)
    wrong = (lengths < _LOW / FRAME_SLACK) | (lengths > _HIGH * FRAME_SLACK)
    if not wrong.any():
        return ""
    bone = int(np.argmax(wrong))
    return f"the bone to the {joint_name(CHILDREN[bone])} measures {lengths[bone]:.4g} mm"


def rotation_fault(rotation: np.ndarray) -> str:
    """What is wrong with a matrix `3 3` that should be a rotation, or an empty text."""
    if rotation.shape != (3, 3) or not np.isfinite(rotation).all():
        return "R is no finite 3 x 3 matrix"
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        return "R is no rotation"
    return ""


def choose_convention(
    world_mm: np.ndarray,
    rotation: np.ndarray,
    vector_mm: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    boxes: np.ndarray | None = None,
) -> Convention:
    """What `vector_mm` is, by looking where each reading of it puts the poses.

    Args:
        world_mm: poses `f 17 3` mm, world frame, of one camera; up to 64 of them are tried.
        rotation: `3 3`, world to camera.
        vector_mm: `3` mm.
        intrinsics: `4`, fx fy cx cy in px.
        size: width and height of the pictures in px.
        boxes: `f 4`, x y w h in px, where the data has them; the pelvis must lie inside.

    Raises:
        ValueError: R is no rotation, or both readings or neither put the poses into the picture.
    """
    fault = rotation_fault(rotation)
    if fault:
        raise ValueError(fault)
    finite = np.flatnonzero(np.isfinite(world_mm).all(axis=(1, 2)))
    tried = (
        finite[np.linspace(0, len(finite) - 1, min(POSES_TRIED, len(finite))).astype(int)] if len(finite) else finite
    )
    if not len(tried):
        raise ValueError("no pose is finite")
    poses = world_mm[tried]
    seen = {name: world_to_camera(poses, rotation, camera_position(name, rotation, vector_mm)) for name in FORMULAS}
    shares = {
        name: _share_inside(points, intrinsics, size, None if boxes is None else boxes[tried])
        for name, points in seen.items()
    }
    held = [name for name, share in shares.items() if share >= IN_PICTURE]
    if len(held) == 1 or (held and np.abs(seen["position"] - seen["translation"]).max() < SAME_PX):
        return held[0]
    inside = "picture" if boxes is None else "picture and its box"
    found = " and ".join(f"{FORMULAS[name]} {share:.0%}" for name, share in shares.items())
    word = "neither reading" if not held else "more than one reading"
    raise ValueError(f"{word} of the camera puts the poses into the {inside} ({found} of {len(tried)} tried)")


def camera_position(convention: Convention, rotation: np.ndarray, vector_mm: np.ndarray) -> np.ndarray:
    """The camera's position `3` mm in the world, T = -R^T t where the vector is a translation."""
    return vector_mm if convention == "position" else -rotation.T @ vector_mm


def _share_inside(
    points_mm: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], boxes: np.ndarray | None
) -> float:
    """The share of poses `f 17 3` mm, camera frame, that stand in front of the camera and in the picture."""
    ahead = points_mm[..., 2].min(axis=1) > 0
    safe = np.where(ahead[:, None, None], points_mm, 1.0)
    joints_px = project(safe, intrinsics)
    inside = ((joints_px >= 0) & (joints_px <= size)).all(axis=-1)
    good = ahead & inside[:, ROOT] & (inside.mean(axis=1) >= IN_PICTURE)
    if boxes is not None:
        root = joints_px[:, ROOT]
        good &= ((root >= boxes[:, :2]) & (root <= boxes[:, :2] + boxes[:, 2:])).all(axis=1)
    return float(good.mean())
