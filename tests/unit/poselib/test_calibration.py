"""Spread against error: the table, its number, and the confidence that is made of the spread."""

import numpy as np
import pytest

from poselib.calibration import calibrate, calibrate_poses, confidence, joint_spread_mm

pytestmark = pytest.mark.unit


def drawn(factor: float, count: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Spreads, and the errors of normal draws whose true spread is `factor` times as large."""
    rng = np.random.default_rng(0)
    deviation = rng.uniform(5, 60, (count, 1)) * rng.uniform(0.5, 1.5, (count, 3))
    error = np.linalg.norm(factor * deviation * rng.normal(size=(count, 3)), axis=-1)
    return joint_spread_mm(deviation), error


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_number_says_how_far_off_the_spread_is(factor):
    found = calibrate(*drawn(factor))
    assert found.ratio == pytest.approx(factor, rel=0.03)
    assert found.error == pytest.approx(abs(factor - 1), abs=0.03)
    np.testing.assert_allclose(found.observed_mm / found.predicted_mm, factor, rtol=0.06)
    assert found.counts.sum() == 40_000
    assert np.ptp(found.counts) <= 1
    assert (np.diff(found.predicted_mm) > 0).all()
    assert found.rank_correlation > 0.4


def test_spread_that_has_nothing_to_do_with_the_error_has_no_rank_correlation():
    spread, error = drawn(1.0)
    assert abs(calibrate(spread, np.roll(error, 1)).rank_correlation) < 0.03
    assert calibrate(np.full(10, 3.0), error[:10]).rank_correlation == 0


def test_joints_without_a_spread_do_not_count():
    spread, error = drawn(1.0, 100)
    spread[::2] = np.nan
    assert calibrate(spread, error).counts.sum() == 50
    with pytest.raises(ValueError, match="no joint"):
        calibrate(np.full(3, np.nan), np.ones(3))
    with pytest.raises(ValueError, match="cannot be compared"):
        calibrate(np.ones(3), np.ones(4))


def test_fewer_joints_than_bins_is_a_bin_each():
    found = calibrate(np.array([1.0, 2.0]), np.array([2.0, 2.0]))
    assert found.counts.tolist() == [1, 1]
    assert found.error == pytest.approx(0.5)


def test_poses_are_judged_by_their_errors_from_the_root_which_does_not_count():
    rng = np.random.default_rng(0)
    true, away = rng.normal(0, 300, (200, 17, 3)), rng.normal(0, 20, (200, 17, 3))
    true[:, 0] = away[:, 0] = 0
    spread = np.full((200, 17), 20 * np.sqrt(3))
    spread[:, 0] = 999
    found = calibrate_poses(spread, true + away, true)
    assert found.counts.sum() == 200 * 16
    assert found.ratio == pytest.approx(1, abs=0.03)
    assert calibrate_poses(np.full((200, 17), np.nan), true + away, true) is None


def test_confidence_is_the_share_of_draws_within_150_mm():
    rng = np.random.default_rng(1)
    for spread in (50.0, 150.0, 400.0):
        draws = spread / np.sqrt(3) * rng.normal(size=(100_000, 3))
        share = (np.linalg.norm(draws, axis=-1) < 150).mean()
        assert confidence(np.array([spread]))[0] == pytest.approx(share, abs=0.01)
    assert confidence(np.array([0.0]))[0] == 1
    assert np.isnan(confidence(np.array([np.nan]))[0])
