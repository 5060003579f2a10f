"""The pelvis' depth from the lengths of limbs."""

import numpy as np
import pytest

from poselib.camera import project
from poselib.root_depth import PROPORTIONS, depth_from_limbs

pytestmark = pytest.mark.unit

STATURE = 1800.0
INTRINSICS = np.array([1100.0, 1150.0, 500.0, 520.0])


def person(rng: np.random.Generator) -> np.ndarray:
    """Limbs of the published lengths in random directions, `17 3` mm from the pelvis."""

    def along(start: np.ndarray, name: str) -> np.ndarray:
        direction = rng.normal(size=3)
        return start + PROPORTIONS[name] * STATURE * direction / np.linalg.norm(direction)

    joints = np.zeros((17, 3))
    joints[[7, 8, 9, 10], 1] = [-250, -500, -600, -750]
    for hip, side in ((1, -1), (4, 1)):
        joints[hip] = [130 * side, 0, 0]
        joints[hip + 1] = along(joints[hip], "hip")
        joints[hip + 2] = along(joints[hip + 1], "knee")
    for shoulder, side in ((14, -1), (11, 1)):
        joints[shoulder] = [150 * side, -480, 0]
        joints[shoulder + 1] = along(joints[shoulder], "shoulder")
        joints[shoulder + 2] = along(joints[shoulder + 1], "elbow")
    return joints


@pytest.mark.parametrize("depth", [1500.0, 5000.0, 20000.0])
def test_true_limbs_give_the_true_depth(depth):
    rng = np.random.default_rng(0)
    poses = np.stack([person(rng) for _ in range(20)])
    there = poses + np.array([300.0, -200.0, depth])
    found = depth_from_limbs(
        project(there, INTRINSICS), poses[..., 2], np.tile(INTRINSICS, (20, 1)), stature_mm=STATURE
    )
    np.testing.assert_allclose(found, depth, rtol=1e-4)


def test_a_person_taken_for_larger_is_taken_to_be_farther():
    pose = np.zeros((1, 17, 3))
    pose[0] = person(np.random.default_rng(1))
    pose[..., 2] = 0  # seen flat, where the depth is proportional to the stature
    flat = pose + np.array([0, 0, 4000.0])
    one, other = (
        depth_from_limbs(project(flat, INTRINSICS), pose[..., 2], INTRINSICS[None], stature_mm=size)
        for size in (1600.0, 1760.0)
    )
    assert other[0] / one[0] == pytest.approx(1.1)


def test_no_joint_ends_up_behind_the_camera():
    rng = np.random.default_rng(2)
    joints_px, depth_mm = rng.uniform(0, 1000, (50, 17, 2)), rng.uniform(-1000, 1000, (50, 17))
    found = depth_from_limbs(joints_px, depth_mm, np.tile(INTRINSICS, (50, 1)))
    assert (found[:, None] + depth_mm > 0).all()


def test_all_joints_in_one_place_still_give_a_number():
    found = depth_from_limbs(np.full((1, 17, 2), 300.0), np.zeros((1, 17)), INTRINSICS[None])
    assert np.isfinite(found).all()
