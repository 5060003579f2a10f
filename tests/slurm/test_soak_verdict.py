"""The soak's verdict sees what it has to see."""

import numpy as np
import pytest

from soak_verdict import Event, costs, same_tensor, violations

pytestmark = pytest.mark.unit


def step(number: int, loss: float | None = None, at: float | None = None) -> dict:
    time = float(number) if at is None else at
    return {"kind": "metrics", "step": number, "time": time, "values": {"train/loss": loss or 1 / number}}


def rewind(to: int) -> dict:
    return {"kind": "rewind", "step": to}


END = {"kind": "status", "value": "finished"}
CALM = [rewind(0), *map(step, range(1, 13)), END]


def disturbed(to: int, *, saves: bool = False, last: int = 12) -> tuple[list[dict], list[Event]]:
    """Killed after step 6, 20 s away."""
    again = [step(number, at=20.0 + number) for number in range(to + 1, last + 1)]
    records = [rewind(0), *map(step, range(1, 7)), rewind(to), *again, END]
    return records, [Event("rank killed", "SIGKILL", 7, 6, 6.0, saves, 1)]


def judged(records: list[dict], events: list[Event], faults: int = 1) -> list[str]:
    return violations(records, CALM, costs(records, events), faults, every=4)


def test_a_restart_from_the_last_checkpoint_is_well():
    records, events = disturbed(4)
    [cost] = costs(records, events)
    assert (cost.restored, cost.repeated, cost.lost_s) == ((4,), (2,), 20.0)
    assert judged(records, events) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (disturbed(0), "6 steps were done again after step 0"),
        (disturbed(5), "1 steps were done again after step 5"),
        (disturbed(4, saves=True), "2 steps again in spite of the warning"),
        (disturbed(4, last=11), "the last step is 11, not 12"),
        (disturbed(8), "a start went on after step 8, but only 6 were done"),
    ],
)
def test_what_must_not_be_is_named(given, words):
    assert any(words in line for line in judged(*given))


def test_other_losses_lost_steps_and_missing_faults_are_named():
    records, events = disturbed(4)
    other = [*records[:3], step(3, 0.5), *records[4:]]
    assert "1 losses differ; the first is 0.5 at step 3" in " ".join(judged(other, events))
    assert "step 3 follows step 1" in judged([*records[:2], *records[3:]], events)
    assert "1 faults befell the run, not 2" in judged(records, events, faults=2)
    assert "SIGKILL at step 6: 0 starts, not 1" in judged(CALM, events)
    assert "the run is not finished but never began" in judged(records[:-1], events)


def test_losses_that_tell_no_steps_apart_prove_nothing():
    records = [rewind(0), *(step(number, 0.5) for number in range(1, 13)), END]
    wrong = violations(records, records, [], 0, every=4)
    assert "11 of 12 undisturbed steps share a loss" in wrong


def test_weights_are_the_same_to_the_bit_and_running_statistics_to_their_rounding():
    true = np.float32([1.0, 1e-3])
    rounded, other = true + np.float32(2e-7), true + np.float32(2e-5)
    assert same_tensor("conv.weight", true, true.copy())
    assert not same_tensor("conv.weight", rounded, true)
    assert same_tensor("bn.running_mean", rounded, true)
    assert not same_tensor("bn.running_mean", other, true)
    assert not same_tensor("bn.num_batches_tracked", np.int64([3]), np.int64([4]))
    assert not same_tensor("bn.running_var", true * np.nan, true)
