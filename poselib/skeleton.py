"""Joint names, parents and mirror pairs of the skeletons, and the maps onto Human3.6M's 17 joints."""

from typing import Final

import numpy as np

H36M_JOINTS: Final = (
    "pelvis",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "spine",
    "thorax",
    "neck",
    "head_top",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
)
"""The 17 joints that every sample, model and score uses, in this order. Joint 0 is the root."""

ROOT: Final = 0
PARENTS: Final = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
MIRROR_PAIRS: Final = ((1, 4), (2, 5), (3, 6), (11, 14), (12, 15), (13, 16))
BONES: Final = tuple((parent, child) for child, parent in enumerate(PARENTS) if parent >= 0)
RIGHT_JOINTS: Final = frozenset(i for i, name in enumerate(H36M_JOINTS) if name.startswith("right_"))

H36M_FROM_RAW32: Final = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""Where the 17 stand among the 32 joints of Human3.6M's raw pose files."""

MPII_JOINTS: Final = (
    "right_ankle",
    "right_knee",
    "right_hip",
    "left_hip",
    "left_knee",
    "left_ankle",
    "pelvis",
    "thorax",
    "upper_neck",
    "head_top",
    "right_wrist",
    "right_elbow",
    "right_shoulder",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
)
MPII_MIRROR_PAIRS: Final = ((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13))

H36M_FROM_MPII: Final = {
    "eth": (6, 2, 1, 0, 3, 4, 5, -1, 7, 8, 9, 13, 14, 15, 12, 11, 10),
    "sun": (6, 2, 1, 0, 3, 4, 5, -1, 8, -1, 9, 13, 14, 15, 12, 11, 10),
    "limbs": (-1, 2, 1, 0, 3, 4, 5, -1, -1, -1, -1, 13, 14, 15, 12, 11, 10),
}
"""For each of the 17 joints, the MPII joint that supervises it, or -1. Published codes disagree on the trunk."""


def mirror_permutation() -> np.ndarray:
    """The order `p` for which `joints[p]` swaps left and right: int64 `17`."""
    order = np.arange(len(H36M_JOINTS))
    for right, left in MIRROR_PAIRS:
        order[[right, left]] = order[[left, right]]
    return order
