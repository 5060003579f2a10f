"""The schedule as a function of the step."""

import pytest

from cluster.schedule import Schedule
from cluster.settings import OptimizerSettings

pytestmark = pytest.mark.unit


def schedule(epochs=4, every=1, **optimizer) -> Schedule:
    return Schedule(OptimizerSettings(lr=1.0, milestones=(2, 3), **optimizer), 100, 30, epochs, every)


def test_an_epoch_ends_with_the_step_that_holds_its_last_sample():
    assert schedule(epochs=1).steps == 4
    assert schedule(epochs=3).steps == 10


def test_the_rate_falls_after_its_milestones():
    rates = [schedule().lr(step) for step in range(schedule().steps)]
    assert rates == pytest.approx([1.0] * 7 + [0.1] * 3 + [0.01] * 4)


def test_warm_up_rises_to_the_rate():
    assert [schedule(warmup_steps=4).lr(step) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


@pytest.mark.parametrize(("rule", "factor"), [("none", 1.0), ("sqrt", 2.0), ("linear", 4.0)])
def test_the_rate_scales_with_the_batch(rule, factor):
    settings = OptimizerSettings(lr=1.0, milestones=(), lr_scale=rule, reference_batch=24)
    assert Schedule(settings, 1000, 96, 1, 1).lr(0) == pytest.approx(factor)


def test_validations_follow_epochs_and_the_end():
    due = [step for step in range(1, 15) if schedule(epochs=4, every=3).validates_after(step)]
    assert due == [10, 14]
    assert [s for s in range(1, 15) if schedule().validates_after(s)] == [4, 7, 10, 14]


def test_an_epoch_shorter_than_a_step_validates_once():
    tiny = Schedule(OptimizerSettings(), 5, 20, 8, 1)
    assert [step for step in range(1, tiny.steps + 1) if tiny.validates_after(step)] == [1, 2]
