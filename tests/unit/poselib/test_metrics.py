import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from poselib import metrics

pytestmark = pytest.mark.unit

seeds = st.integers(0, 2**32 - 1)
KINDS = pytest.mark.parametrize("alignment", ["rigid", "similarity"])


def poses(seed: int, n: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 400, (n, 17, 3))


def moved(pose: np.ndarray, seed: int, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turns = Rotation.random(len(pose), rng=rng).as_matrix()
    return scale * pose @ turns + rng.normal(0, 1000, (len(pose), 1, 3))


def test_mpjpe_by_hand() -> None:
    true = np.zeros((2, 17, 3))
    predicted = true.copy()
    predicted[0, 4] = (3.0, 4.0, 0.0)
    predicted[1, :, 2] = 2.0
    errors = metrics.joint_errors_mm(predicted, true)
    assert errors[0, 4] == 5
    assert metrics.mpjpe_mm(predicted, true) == pytest.approx((5 + 17 * 2) / 34)


def test_root_relative_puts_the_pelvis_at_zero_and_keeps_distances() -> None:
    pose = poses(0).astype(np.float32)
    relative = metrics.root_relative(pose)
    assert relative.dtype == np.float64
    assert not relative[:, 0].any()
    np.testing.assert_allclose(relative[:, 5] - relative[:, 9], pose[:, 5] - pose[:, 9], atol=1e-3)


@KINDS
@given(seed=seeds)
@settings(max_examples=50, deadline=None)
def test_alignment_equals_scipys(alignment: str, seed: int) -> None:
    true, predicted = poses(seed), poses(seed + 1)
    aligned = metrics.align(predicted, true, alignment)
    for i in range(len(true)):
        goal, source = true[i] - true[i].mean(axis=0), predicted[i] - predicted[i].mean(axis=0)
        rotation, _ = Rotation.align_vectors(goal, source)
        expected = rotation.apply(source)
        if alignment == "similarity":
            expected *= np.linalg.lstsq(expected.reshape(-1, 1), goal.reshape(-1), rcond=None)[0]
        np.testing.assert_allclose(aligned[i], expected + true[i].mean(axis=0), atol=1e-6)


@given(seed=seeds, scale=st.floats(0.1, 10))
@settings(max_examples=50, deadline=None)
def test_pa_mpjpe_forgives_what_its_kind_says(seed: int, scale: float) -> None:
    true = poses(seed)
    assert metrics.pa_mpjpe_mm(moved(true, seed), true, "rigid") < 1e-6
    assert metrics.pa_mpjpe_mm(moved(true, seed, scale), true, "similarity") < 1e-6
    noisy = true + poses(seed + 2) / 10
    for alignment in ("rigid", "similarity"):
        before = metrics.pa_mpjpe_mm(noisy, true, alignment)
        assert metrics.pa_mpjpe_mm(moved(noisy, seed), true, alignment) == pytest.approx(before, rel=1e-6)


def test_rigid_alignment_keeps_the_scale() -> None:
    true = poses(1)
    assert metrics.pa_mpjpe_mm(true * 1.1, true, "rigid") > 10


@KINDS
def test_mirrored_poses_are_not_forgiven(alignment: str) -> None:
    true = poses(2)
    assert metrics.pa_mpjpe_mm(true * [-1, 1, 1], true, alignment) > 50


@KINDS
def test_degenerate_poses(alignment: str) -> None:
    true = poses(3, n=4)
    predicted = true.copy()
    predicted[0] = 7.0  # all joints at one place
    predicted[1] = np.linspace(0, 1, 17)[:, None] * [100.0, 0.0, 0.0]  # on one line
    predicted[2, 5, 1] = np.nan
    aligned = metrics.align(predicted, true, alignment)
    centre = true[0].mean(axis=0)
    np.testing.assert_allclose(aligned[0], np.broadcast_to(centre, (17, 3)))
    assert np.isfinite(aligned[1]).all()
    assert np.isnan(aligned[2]).all()
    np.testing.assert_allclose(aligned[3], true[3], atol=1e-9)
    assert np.isnan(metrics.pa_mpjpe_mm(predicted, true, alignment))


@KINDS
def test_planar_poses_are_rotated_not_mirrored(alignment: str) -> None:
    flat = poses(4) * [1, 1, 0]
    np.testing.assert_allclose(metrics.align(moved(flat, 5), flat, alignment), flat, atol=1e-6)


def test_pck_and_auc() -> None:
    errors = np.full((4, 17), 72.0)
    errors[0, 0] = 151.0
    assert metrics.pck(errors) == pytest.approx(67 / 68)
    # 72 mm lie within the thresholds 75, 80 ... 150: 16 of 31.
    assert metrics.auc(errors) == pytest.approx(16 / 31 * 67 / 68)
    assert metrics.auc(np.zeros((1, 17))) == metrics.pck(np.full((1, 17), 150.0)) == 1
    assert metrics.pck(np.full((1, 17), np.nan)) == 0


def test_pckh_counts_visible_joints_of_people_with_heads() -> None:
    true = np.zeros((3, 17, 2))
    predicted = true.copy()
    predicted[0, :5, 0] = 11.0  # more than half of 20 px
    predicted[1, :5, 1] = 11.0  # less than half of 40 px
    predicted[2] = 1000.0
    visible = np.ones((3, 17), dtype=bool)
    visible[0, 4] = False
    head_size = np.array([20.0, 40.0, 0.0])
    assert metrics.pckh(predicted, true, head_size, visible) == pytest.approx((16 - 4 + 17) / 33)


def test_actions_count_the_same_however_many_frames_they_have() -> None:
    errors = np.concatenate([np.full((3, 17), 10.0), np.full((1, 17), 50.0)])
    actions = ["Walking", "Walking", "Walking", "Eating"]
    assert metrics.mean_by_action(errors, actions) == {"Eating": 50.0, "Walking": 10.0}
    assert metrics.action_mean_mm(errors, actions) == 30
    assert errors.mean() == 20
    with pytest.raises(ValueError, match="4 poses need as many actions, not 3"):
        metrics.mean_by_action(errors, actions[:3])


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        metrics.mpjpe_mm(np.zeros((0, 17, 3)), np.zeros((0, 17, 3)))
    with pytest.raises(ValueError, match="nothing to score"):
        metrics.pckh(np.zeros((1, 17, 2)), np.zeros((1, 17, 2)), np.zeros(1), np.ones((1, 17), dtype=bool))
