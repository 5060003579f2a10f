"""What raw annotations must obey: human bones, in millimetres, in our order, and a camera that sees them."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from poselib.skeleton import H36M_FROM_RAW32, mirror_permutation
from shards.readers.checks import (
    camera_position,
    choose_convention,
    frame_fault,
    rotation_fault,
    size_fault,
    skeleton_fault,
)
from shards.readers.joint_order import bone_lengths
from shards.settings import StudioSettings
from shards.studio.human36m import _RAW32_FROM_LANDMARKS, _draw_take

pytestmark = pytest.mark.unit

STANDING = np.array(
    [
        *([0, 0, 0], [-130, 0, 0], [-150, -30, -440], [-150, 30, -880]),
        *([130, 0, 0], [150, -30, -440], [150, 30, -880]),
        *([0, 10, 230], [0, 20, 480], [0, -60, 580], [0, -20, 690]),
        *([150, 10, 460], [200, 20, 190], [220, -60, -50]),
        *([-150, 10, 460], [-200, -10, 190], [-330, -60, 390]),
    ],
    float,
)
INTRINSICS = np.array([1145.0, 1144.0, 512.0, 515.0])
SIZE = (1000, 1002)
ROTATION = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
"""Looks along the world's +y, with z up."""
POSITION = np.array([200.0, -5500.0, 1500.0])


@pytest.fixture
def poses():
    """A person who walks about the middle of the room."""
    steps = np.random.default_rng(0).uniform(-700, 700, (20, 1, 3)) * (1, 1, 0) + (0, 0, 900)
    return STANDING + steps


def test_bones_are_measured_from_their_parents():
    lengths = bone_lengths(STANDING)
    assert lengths.shape == (16,)
    np.testing.assert_allclose(lengths[0], 130)
    np.testing.assert_allclose(lengths[1], np.hypot(np.hypot(20, 30), 440))


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "metres"), (1e-1, "centimetres"), (1 / 25.4, "inches")])
def test_another_unit_is_named(poses, factor, unit):
    assert skeleton_fault(poses) == ""
    assert skeleton_fault(poses * factor).startswith(f"the poses look like {unit}, not millimetres: a thigh measures")
    assert "no person in millimetres" in skeleton_fault(poses * 7)


def test_another_joint_order_is_named(poses):
    kf = [3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13, 9]
    assert "in this joint order: the bone from" in skeleton_fault(poses[:, kf])
    rng = np.random.default_rng(1)
    for _ in range(50):
        order = np.r_[0, 1 + rng.permutation(16)]
        assert skeleton_fault(poses[:, order]), order


def test_left_and_right_are_told_apart(poses):
    backwards = "the knees bend backwards: left and right are swapped, or an axis is mirrored"
    assert skeleton_fault(poses[:, mirror_permutation()]) == backwards
    assert skeleton_fault(poses * (-1, 1, 1)) == backwards
    arms = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13])
    assert skeleton_fault(poses[:, arms]).startswith("hips and shoulders disagree on which side is left")


@pytest.mark.parametrize(("share", "sound"), [(0.9, True), (0.86, True), (0.84, False), (0.7, False)])
def test_limbs_may_differ_by_fifteen_percent_and_no_more(poses, share, sound):
    poses[:, 6] = poses[:, 5] + (poses[:, 3] - poses[:, 2]) * (-1, 1, 1) * share
    assert (skeleton_fault(poses) == "") == sound


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    """The joints of a studio person in four motions."""
    settings = StudioSettings(out=Path("nowhere"), frames=40)
    takes = [_draw_take(settings, "S6", action) for action in ("Walking", "Sitting", "Posing", "Greeting")]
    raw32 = np.concatenate([take.landmarks for take in takes])[:, _RAW32_FROM_LANDMARKS]
    return raw32[:, H36M_FROM_RAW32]


def test_any_two_joints_swapped_are_told_from_a_person_who_moves(moving):
    assert skeleton_fault(moving) == ""
    assert skeleton_fault(moving[:, mirror_permutation()])
    for pair in itertools.combinations(range(17), 2):
        order = np.arange(17)
        order[list(pair)] = pair[::-1]
        assert skeleton_fault(moving[:, order]), pair


@pytest.mark.parametrize(
    ("size", "sound"), [((1000, 1002), True), ((1000, 1000), True), ((900, 902), False), ((1000, 900), False)]
)
def test_a_picture_that_was_scaled_or_cropped_is_told_by_its_principal_point(size, sound):
    assert (size_fault(INTRINSICS, size) == "") == sound


def test_uneven_limbs_are_named(poses):
    uneven = poses.copy()
    uneven[:, 13] = uneven[:, 12] + 0.7 * (uneven[:, 13] - uneven[:, 12])
    assert "left and right differ by 27%" in skeleton_fault(uneven)
    assert "left wrist" in skeleton_fault(uneven)


def test_a_few_bad_frames_do_not_condemn_a_recording_but_are_found_alone(poses):
    poses[3, 5] = np.nan
    poses[7, 5] += (0, 2000, 0)
    assert skeleton_fault(poses) == ""
    assert frame_fault(poses[3]) == "the pose is not finite"
    assert frame_fault(poses[7]).startswith("the bone to the left knee measures")
    assert frame_fault(poses[0]) == ""
    assert skeleton_fault(np.full((2, 17, 3), np.nan)) == "no pose is finite"


@pytest.mark.parametrize("convention", ["position", "translation"])
def test_the_convention_is_what_puts_people_into_the_picture(poses, convention):
    vector = POSITION if convention == "position" else -ROTATION @ POSITION
    assert choose_convention(poses, ROTATION, vector, INTRINSICS, SIZE) == convention
    np.testing.assert_allclose(camera_position(convention, ROTATION, vector), POSITION)
    poses[::3] = np.nan
    assert choose_convention(poses, ROTATION, vector, INTRINSICS, SIZE) == convention


def test_boxes_decide_where_the_picture_alone_cannot(poses):
    ahead, turned = np.array([0.0, 0.0, 13000.0]), np.eye(3)
    far = (poses - poses.mean(axis=(0, 1))) * (1, 0.5, 1) + ahead
    vector = np.array([100.0, 100.0, 6000.0])
    with pytest.raises(ValueError, match="more than one reading of the camera puts the poses into the picture "):
        choose_convention(far, turned, vector, INTRINSICS, SIZE)
    for convention, root in (("position", far[:, 0] - vector), ("translation", far[:, 0] + vector)):
        centre = root[:, :2] / root[:, 2:] * INTRINSICS[:2] + INTRINSICS[2:]
        boxes = np.concatenate([centre - 4, np.full((len(far), 2), 8.0)], axis=1)
        assert choose_convention(far, turned, vector, INTRINSICS, SIZE, boxes) == convention
    assert choose_convention(far, turned, np.zeros(3), INTRINSICS, SIZE) == "position"  # both are the same


def test_no_reading_of_a_wrong_camera_is_taken(poses):
    with pytest.raises(ValueError, match=r"neither reading .* R \(X - T\) 0% and X_cam = R X \+ t 0% of 20 tried"):
        choose_convention(poses, ROTATION, POSITION * (1, -1, 1), INTRINSICS, SIZE)
    with pytest.raises(ValueError, match="R is no rotation"):
        choose_convention(poses, ROTATION * 1.1, POSITION, INTRINSICS, SIZE)
    with pytest.raises(ValueError, match="no pose is finite"):
        choose_convention(poses * np.nan, ROTATION, POSITION, INTRINSICS, SIZE)


def test_a_rotation_is_one():
    assert rotation_fault(ROTATION) == ""
    assert rotation_fault(np.diag([1.0, 1.0, -1.0])) == "R is no rotation"
    assert rotation_fault(np.full((3, 3), np.nan)) == "R is no finite 3 x 3 matrix"
