"""The loop's steps: what each tells, read at once or while the next one is on its way."""

from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from cluster.loop import Step, train_loop
from poselib.errors import InputError

pytestmark = pytest.mark.unit

STEPS = 7
DUE: dict[str, Callable[[int], bool]] = {
    "at once": lambda number: True,
    "later": lambda number: False,
    "every third at once": lambda number: number % 3 == 0,
}


def looped(
    due: Callable[[int], bool], loss_of: Callable[[int], float] = float, stop_in: int = 0
) -> tuple[bool | str, list[Step], list[int]]:
    """How a loop of micro-batches of one step ends, what it tells, and how many steps were under way each time.

    Args:
        due: as the loop's.
        loss_of: by the step, counted from 1.
        stop_in: the step in which a signal comes.
    """
    stop, begun, seen, under_way = SimpleNamespace(requested=False), [0], [], []

    def loss(batch: SimpleNamespace) -> torch.Tensor:
        begun[0] += 1
        stop.requested |= begun[0] == stop_in
        return torch.tensor(loss_of(begun[0]))

    def after_step(step: Step) -> None:
        seen.append(step)
        under_way.append(begun[0])

    engine = MagicMock(device=torch.device("cpu"), accumulation=1)
    schedule = SimpleNamespace(steps=STEPS, lr=lambda step: 0.1 * step)
    batches = iter([SimpleNamespace(replaced=()) for _ in range(STEPS)])
    try:
        ended = train_loop(engine, batches, loss, schedule, stop, 0, after_step, due, watch=MagicMock())
    except InputError as error:
        return str(error), seen, under_way
    return ended, seen, under_way


@pytest.mark.parametrize("due", DUE.values(), ids=DUE)
def test_every_step_is_told_once_and_in_order(due) -> None:
    ended, seen, _ = looped(due)
    assert ended is True
    assert [(step.number, step.loss, step.last) for step in seen] == [
        (number, float(number), number == STEPS) for number in range(1, STEPS + 1)
    ]
    assert [step.lr for step in seen] == [0.1 * number for number in range(STEPS)]


def test_a_step_that_is_due_is_told_before_the_next_begins_and_others_one_later() -> None:
    _, seen, under_way = looped(DUE["every third at once"])
    behind = [begun - step.number for step, begun in zip(seen, under_way, strict=True)]
    assert behind == [1, 1, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(("due", "end"), [("at once", 4), ("later", 5), ("every third at once", 5)])
def test_a_signal_ends_the_loop_at_the_next_boundary_that_hears_of_it(due: str, end: int) -> None:
    ended, seen, _ = looped(DUE[due], stop_in=4)
    assert ended is False
    assert [step.number for step in seen if step.last] == [end]
    assert [step.number for step in seen] == list(range(1, end + 1))


def test_a_signal_in_the_last_step_but_one_does_not_keep_the_run_from_its_end() -> None:
    ended, seen, _ = looped(DUE["later"], stop_in=STEPS - 1)
    assert ended is True
    assert [step.number for step in seen if step.last] == [STEPS]


@pytest.mark.parametrize("due", DUE.values(), ids=DUE)
def test_nothing_is_done_after_a_loss_that_is_not_finite(due) -> None:
    error, seen, _ = looped(due, lambda step: float("nan") if step == 5 else 1.0)
    assert "loss of step 5 is nan" in str(error)
    assert [step.number for step in seen] == [1, 2, 3, 4]


def test_replaced_samples_of_a_step_are_summed() -> None:
    engine = MagicMock(device=torch.device("cpu"), accumulation=2)
    batches = iter([SimpleNamespace(replaced=lines) for lines in ((), ("a", "b"), ("c",), (), (), ())])
    schedule, stop = SimpleNamespace(steps=3, lr=lambda step: 0.1), SimpleNamespace(requested=False)
    seen: list[Step] = []
    train_loop(
        engine, batches, lambda batch: torch.zeros(()), schedule, stop, 0, seen.append, DUE["later"], watch=MagicMock()
    )
    assert [step.replaced for step in seen] == [2, 1, 0]
