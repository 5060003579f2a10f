"""What a soak's run folder tells: what each fault cost, and whether anything was lost, done twice or done otherwise."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

Record = Mapping[str, Any]

_ROUNDING: Final = 1e-5
_BY_CHANCE: Final = 0.01
"""Of hundreds of losses in 32 bits, two may be equal."""


@dataclass(frozen=True)
class Event:
    """A fault that befell the run.

    Attributes:
        kind: its key in `faults.FAULTS`.
        what: in words.
        mark: records in the journal when it happened.
        step: the last one logged by then.
        time: seconds since the epoch.
        saves: whether the ranks had the time to save.
        restarts: how often it had to start the job again, at least.
    """

    kind: str
    what: str
    mark: int
    step: int
    time: float
    saves: bool
    restarts: int


@dataclass(frozen=True)
class Cost:
    """What a fault cost.

    Attributes:
        event: the fault.
        restored: the steps after which the starts behind it went on.
        repeated: steps that were done again, for each of these starts.
        lost_s: seconds until the next fault, less what the steps between the two take undisturbed.
    """

    event: Event
    restored: tuple[int, ...]
    repeated: tuple[int, ...]
    lost_s: float


def losses(records: Sequence[Record]) -> list[tuple[int, float]]:
    """Step and loss as they were logged, repeated ones too."""
    return [(line["step"], line["values"]["train/loss"]) for line in records if _is_step(line)]


def pace(records: Sequence[Record]) -> float:
    """Seconds of a step: the median between two that follow each other."""
    steps = [line for line in records if _is_step(line)]
    return statistics.median(
        later["time"] - line["time"] for line, later in itertools.pairwise(steps) if later["time"] > line["time"]
    )


def costs(records: Sequence[Record], events: Sequence[Event]) -> list[Cost]:
    """Each fault with the starts between it and the next one."""
    if not events:
        return []
    step_s, rewinds = pace(records), _rewinds(records)
    steps = [line for line in records if _is_step(line)]
    marks = [*(event.mark for event in events[1:]), len(records)]
    last = [*((event.step, event.time) for event in events[1:]), (steps[-1]["step"], steps[-1]["time"])]
    found = []
    for event, mark, (step, when) in zip(events, marks, last, strict=True):
        mine = [(to, again) for place, to, again in rewinds if event.mark <= place < mark]
        lost = when - event.time - (step - event.step) * step_s
        found.append(Cost(event, tuple(to for to, _ in mine), tuple(again for _, again in mine), lost))
    return found


def violations(
    records: Sequence[Record], expected: Sequence[Record], found: Sequence[Cost], faults: int, every: int
) -> list[str]:
    """What must not be; nothing if the run is as good as one that nothing happened to.

    Args:
        records: the journal of the disturbed run.
        expected: of the undisturbed one.
        found: what each fault cost.
        faults: how many were asked for.
        every: steps between two checkpoints.
    """
    wrong = [f"{len(found)} faults befell the run, not {faults}"] if len(found) != faults else []
    return wrong + _order(records, expected) + _losses(records, expected) + _repeats(records, found, every)


def _order(records: Sequence[Record], expected: Sequence[Record]) -> list[str]:
    """Every step once, one after the other, up to the same last one, but for those done again after a restart."""
    wrong, step = [], 0
    for line in records:
        if line["kind"] == "rewind":
            if line["step"] > step:
                wrong.append(f"a start went on after step {line['step']}, but only {step} were done")
            step = line["step"]
        elif _is_step(line):
            if line["step"] != step + 1:
                wrong.append(f"step {line['step']} follows step {step}")
            step = line["step"]
    end = losses(expected)[-1][0]
    statuses = [line["value"] for line in records if line["kind"] == "status"]
    if step != end:
        wrong.append(f"the last step is {step}, not {end}")
    if not statuses or statuses[-1] != "finished":
        wrong.append(f"the run is not finished but {statuses[-1] if statuses else 'never began'}")
    return wrong


def same_tensor(name: str, mine: np.ndarray, true: np.ndarray) -> bool:
    """Whether a tensor of the disturbed run is the undisturbed one's: bit by bit, but for running statistics, which are
    combined before every save, and a disturbed run saves more often."""
    if not name.endswith((".running_mean", ".running_var")):
        return mine.tobytes() == true.tobytes()
    return mine.shape == true.shape and bool(np.abs(mine - true).max() <= _ROUNDING * np.abs(true).max())


def _losses(records: Sequence[Record], expected: Sequence[Record]) -> list[str]:
    """Equal bit by bit, those of repeated steps too. As hardly two are the same, the samples are."""
    true = dict(losses(expected))
    shared = len(true) - len(set(true.values()))
    wrong = [f"{shared} of {len(true)} undisturbed steps share a loss"] if shared > _BY_CHANCE * len(true) else []
    other = [(step, loss) for step, loss in losses(records) if true.get(step) != loss]
    if other:
        step, loss = other[0]
        wrong.append(f"{len(other)} losses differ; the first is {loss!r} at step {step}, not {true.get(step)!r}")
    return wrong


def _repeats(records: Sequence[Record], found: Sequence[Cost], every: int) -> list[str]:
    """Only the steps since the last checkpoint, and none where there was the time to save."""
    wrong = []
    for cost in found:
        event = cost.event
        if len(cost.restored) < event.restarts:
            wrong.append(f"{event.what} at step {event.step}: {len(cost.restored)} starts, not {event.restarts}")
        if event.saves and any(cost.repeated):
            wrong.append(f"{event.what} at step {event.step}: {max(cost.repeated)} steps again in spite of the warning")
    for _, to, again in _rewinds(records):
        if again > every or (to % every and again):
            wrong.append(f"{again} steps were done again after step {to}, with a checkpoint every {every}")
    return wrong


def _rewinds(records: Sequence[Record]) -> list[tuple[int, int, int]]:
    """Of each start but the first: its place in the journal, the step it went on after, the steps it did again."""
    found, step = [], 0
    for place, line in enumerate(records):
        if line["kind"] == "rewind":
            found.append((place, line["step"], step - line["step"]))
            step = line["step"]
        elif _is_step(line):
            step = line["step"]
    return found[1:]


def _is_step(line: Record) -> bool:
    return "train/loss" in line.get("values", {})
