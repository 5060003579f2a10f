import numpy as np
import pytest

from cluster.report.intervals import FEWEST_TAKES, intervals, units

pytestmark = pytest.mark.unit


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(3.0, 10.0, (2000, 1))
    found = intervals(values, np.ones_like(values), np.arange(2000), 2000)
    error = values.std() / np.sqrt(2000)
    assert found.mean[0] == pytest.approx(values.mean())
    assert found.low[0] == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert found.high[0] == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_frames_of_a_take_are_no_evidence_of_their_own():
    rng = np.random.default_rng(0)
    take = np.repeat(np.arange(20), 50)
    values = rng.normal(0, 5, (20, 1))[take] + rng.normal(0, 1, (1000, 1))
    by_take = intervals(values, np.ones_like(values), take, 1000)
    by_frame = intervals(values, np.ones_like(values), np.arange(1000), 1000)
    assert by_take.high - by_take.low > 4 * (by_frame.high - by_frame.low)


def test_pairing_sees_a_small_difference_between_samples_that_differ_much():
    rng = np.random.default_rng(0)
    one = rng.normal(100, 40, (300, 1))
    other = one - 1 + rng.normal(0, 2, (300, 1))
    weights, unit = np.ones_like(one), np.arange(300)
    paired = intervals(other - one, weights, unit, 1000)
    assert paired.high[0] < 0
    apart = [intervals(values, weights, unit, 1000) for values in (one, other)]
    assert apart[0].low < apart[1].high
    assert apart[1].low < apart[0].high


def test_weights_leave_samples_out_and_draws_that_miss_a_figure_say_nothing_of_it():
    values = np.arange(40.0)[:, None].repeat(2, axis=1)
    weights = np.ones_like(values)
    weights[2:, 1] = 0  # two of forty samples: many draws hold neither
    found = intervals(values, weights, np.arange(40), 500)
    assert found.mean.tolist() == [19.5, 0.5]
    assert (found.low[1], found.high[1]) == (0, 1)


def test_a_mean_of_means_is_taken_anew_in_every_draw():
    """Against a bootstrap that recomputes the figure: actions far apart, of unequal size, are no noise of the mean."""
    rng = np.random.default_rng(0)
    take = np.repeat(np.arange(60), 5)
    action = np.arange(60) % 4
    value = (np.array([20.0, 50.0, 90.0, 200.0])[action] + rng.normal(0, 4, 60))[take] + rng.normal(0, 2, 300)
    one_hot = np.eye(4)[action[take]]
    found = intervals(np.repeat(value[:, None], 4, axis=1), one_hot, take, 4000, [range(4)])

    def figure(rows: np.ndarray) -> float:
        return float(np.mean([value[rows][one_hot[rows, k] > 0].mean() for k in range(4) if one_hot[rows, k].any()]))

    members = [np.flatnonzero(take == number) for number in range(60)]
    drawn = [figure(np.concatenate([members[t] for t in rng.integers(0, 60, 60)])) for _ in range(4000)]
    assert found.mean[4] == pytest.approx(figure(np.arange(300)))
    low, high = np.percentile(drawn, (2.5, 97.5))
    assert high - low < 8
    assert found.low[4] == pytest.approx(low, abs=0.05 * (high - low))
    assert found.high[4] == pytest.approx(high, abs=0.05 * (high - low))


def test_an_action_that_a_draw_misses_is_left_out_of_its_mean():
    values = np.array([[10.0, 10.0], [10.0, 10.0], [30.0, 30.0]])
    found = intervals(values, np.array([[1.0, 0], [1, 0], [0, 1]]), np.arange(3), 500, [[0, 1]])
    assert found.mean.tolist() == [10, 30, 20]
    assert (found.low[2], found.high[2]) == (10, 30)


def test_one_single_unit_has_no_interval():
    found = intervals(np.ones((5, 1)), np.ones((5, 1)), np.zeros(5), 100)
    assert found.mean[0] == 1
    assert np.isnan(found.low[0])


def test_too_few_takes_are_not_resampled():
    few, many = np.repeat(np.arange(FEWEST_TAKES - 1), 3), np.repeat(np.arange(FEWEST_TAKES), 3)
    unit, by_take = units(few)
    assert not by_take
    assert len(set(unit.tolist())) == len(few)
    unit, by_take = units(many)
    assert by_take
    assert len(set(unit.tolist())) == FEWEST_TAKES
