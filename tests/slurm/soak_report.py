"""A soak's summary: a table on the terminal, and a page in Markdown."""

import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from rich import box
from rich.table import Table

from soak_verdict import Cost

_HEAD: Final = ("", "fault", "at step", "restored from", "steps again", "time lost")

_PAGE: Final = """\
# Reliability

The summary that `make soak` wrote: one training over two nodes of a Slurm of four, disturbed by {faults} random faults,
and held against the same training left alone.

**{verdict}**

| | |
|---|---|
| command | `{command}` |
| when | {when}, {minutes:.0f} minutes |
| run | {steps} steps of {batch} samples, a checkpoint every {every}, {pace:.2f} s a step |
| starts of the job | {starts} |
| steps done again | {again} |
| code | {code} |
| versions | {versions} |

Held against each other: the number of steps, their order, the loss of every step bit by bit (also of those that were
done again), the weights at the end bit by bit, and BatchNorm's running statistics within 1e-5 of the largest: ranks
combine them before every save, of which a disturbed training has more, each with its own rounding. Hardly two steps of
the undisturbed training have the same loss, so equal losses are of the same samples in the same order. After a restart
nothing may be done again but the steps since the last checkpoint, and nothing at all where the ranks were warned.

## What was done to it

{table}

"Time lost" is the time by the clock until the next fault, less what the steps between the two take undisturbed. It is
the fault itself, Slurm's own delays (5 s before a requeued job may start, 30 s between two looks at time limits, about
10 s until a node is given up), the start of Python and of the ranks, and the steps done again. By kind, the median:

{kinds}

Two places in "restored from" are two starts after one fault: a batch host that comes back after Slurm has started the
job elsewhere may end that start too, see [On a cluster](cluster.md).

## What this does not show

- The nodes are namespaces of one machine: their network is a bridge, their clocks are one clock, their file system is
  one local disk. `flock` over NFS or Lustre, and a file system that hangs, were not tested.
- The ranks talk by gloo, on the CPU. NCCL, InfiniBand and real GPUs, and how those fail, were not there. The network is
  tiny, the training takes minutes, and the faults come more densely than on any cluster.
- Slurm is set up for haste: it gives up a node after 5 s and lets a requeued job start after 5 s.
- "Disk full" is a limit on the size of the files that rank 0 writes; the batch script's own log is not under it.
- A power loss ends all processes of a node, but not the machine whose page cache holds the files: that what was fsynced
  survives a real power loss is the file system's word.
- The job stays on two nodes throughout. Other numbers of nodes are tested apart (`tests/slurm/test_train_worlds.py`).
"""


@dataclass(frozen=True)
class Summary:
    """What a soak tells.

    Attributes:
        found: what each fault cost.
        wrong: what must not be.
        command: that ran it.
        when: it began.
        minutes: it took.
        steps: of the run.
        batch: samples of a step.
        every: steps between two checkpoints.
        pace: seconds of a step.
        starts: of the job.
        again: steps that were done again, in all.
        code: version and revision.
        slurm: version.
    """

    found: Sequence[Cost]
    wrong: Sequence[str]
    command: str
    when: str
    minutes: float
    steps: int
    batch: int
    every: int
    pace: float
    starts: int
    again: int
    code: str
    slurm: str

    @property
    def verdict(self) -> str:
        """In one line."""
        if self.wrong:
            return f"Violated: {self.wrong[0]}" + (f" (and {len(self.wrong) - 1} more)" if len(self.wrong) > 1 else "")
        return (
            f"Held: {len(self.found)} faults, {self.starts} starts, and {self.steps} steps with the losses and weights"
            " of a training that nothing happened to."
        )


def table(found: Sequence[Cost]) -> Table:
    """For the terminal."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(_HEAD):
        made.add_column(column, justify="left" if number == 1 else "right")
    for row in _rows(found):
        made.add_row(*row)
    return made


def page(summary: Summary) -> str:
    """`docs/reliability.md`."""
    names = ("torch", "deepspeed", "submitit")
    versions = [f"Slurm {summary.slurm}", f"Python {platform.python_version()}"]
    versions += [*(f"{name} {version(name)}" for name in names), f"Linux {platform.release()}"]
    rows = _rows(summary.found)
    rules = ["---:", "---", *["---:"] * 4]
    return _PAGE.format(
        faults=len(summary.found),
        verdict=summary.verdict,
        command=summary.command,
        when=summary.when,
        minutes=summary.minutes,
        steps=summary.steps,
        batch=summary.batch,
        every=summary.every,
        pace=summary.pace,
        starts=summary.starts,
        again=summary.again,
        code=summary.code,
        versions=", ".join(versions),
        table=_markdown([_HEAD, rules, *rows]),
        kinds=_markdown(
            [("kind", "times", "time lost", "steps again"), ("---", "---:", "---:", "---:"), *_kinds(summary)]
        ),
    )


def _rows(found: Sequence[Cost]) -> list[list[str]]:
    return [
        [
            str(number),
            cost.event.what,
            str(cost.event.step),
            ", ".join(map(str, cost.restored)) or "went on",
            str(sum(cost.repeated)),
            f"{max(cost.lost_s, 0):.0f} s",
        ]
        for number, cost in enumerate(found, 1)
    ]


def _kinds(summary: Summary) -> list[list[str]]:
    rows = []
    for kind in sorted({cost.event.kind for cost in summary.found}):
        mine = [cost for cost in summary.found if cost.event.kind == kind]
        lost = max(statistics.median(cost.lost_s for cost in mine), 0)
        again = statistics.median(sum(cost.repeated) for cost in mine)
        rows.append([kind, str(len(mine)), f"{lost:.0f} s", f"{again:g}"])
    return rows


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
