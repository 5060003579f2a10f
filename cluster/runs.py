"""The runs in a folder, told by their own files alone: what is where, how far, how good, how large. No torch here."""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.run_folder import RUN_YAML
from cluster.tracking.journal import JOURNAL_NAME, read_records
from poselib.errors import InputError
from shards.locks import take

SCORE: Final = "val/mpjpe_mm"
_DEPTH: Final = 4
"""How deep below `runs_dir` runs are looked for: searches and studies keep theirs in folders of their own."""


@dataclass(frozen=True)
class RunsSettings:
    """List the runs in a folder.

    Attributes:
        runs_dir: where they are; searches below it are looked through too.
    """

    runs_dir: Path = Path("runs")


@dataclass(frozen=True)
class RunState:
    """How a run stands.

    Attributes:
        folder: of the run.
        state: `running` (its folder is held), `finished`, `stopped`, `failed`, `killed` (it said running and is not),
            or `new` (nothing was logged yet).
        step: the last one logged.
        epoch: the last one logged.
        epochs: to train; 0 where run.yaml does not say.
        best_mm: best validation MPJPE; NaN without one.
        best_step: its step; 0 without one.
        size: of all files, bytes.
        changed: when the newest file changed, seconds since 1970.
    """

    folder: Path
    state: str
    step: int
    epoch: float
    epochs: int
    best_mm: float
    best_step: int
    size: int
    changed: float


def list_runs(settings: RunsSettings) -> None:
    """`pose runs list`: print one row per run, the last changed first.

    Raises:
        InputError: there is no such folder.
    """
    states = sorted(map(read_state, find_runs(settings.runs_dir)), key=lambda state: -state.changed)
    console = Console()
    if not states:
        console.print(f"no run in {settings.runs_dir}; next: pose train --config FILE", highlight=False, soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("state")
    for column in ("step", "epoch", "val MPJPE", "size", "changed"):
        table.add_column(column, justify="right")
    now = time.time()
    for state in states:
        table.add_row(
            escape(str(state.folder.relative_to(settings.runs_dir))),
            state.state,
            str(state.step),
            f"{state.epoch:.1f} of {state.epochs or '?'}",
            "" if math.isnan(state.best_mm) else f"{state.best_mm:.1f} mm",
            amount(state.size),
            f"{_age(now - state.changed)} ago",
        )
    console.print(table)
    total = amount(sum(state.size for state in states))
    count = f"{len(states)} run{'s' if len(states) > 1 else ''}, {total}"
    console.print(f"{count}; `pose runs gc {settings.runs_dir}` lists what could go", highlight=False, soft_wrap=True)


def find_runs(runs_dir: Path) -> Iterator[Path]:
    """The folders of all runs in and below `runs_dir`.

    Raises:
        InputError: there is no such folder.
    """
    if not runs_dir.is_dir():
        raise InputError(f"{runs_dir} is not a folder; give the one that holds the runs (their runs_dir)")
    for place, folders, files in os.walk(runs_dir):
        if RUN_YAML in files or JOURNAL_NAME in files:
            folders.clear()
            yield Path(place)
        elif len(Path(place).relative_to(runs_dir).parts) >= _DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def read_state(folder: Path, mine: bool = False) -> RunState:
    """How the run in `folder` stands; what is missing or damaged counts as not yet there.

    Args:
        folder: of the run.
        mine: this process holds it itself, and does not train.
    """
    status, step, epoch = "", 0, 0.0
    scores: dict[int, float] = {}
    for record in _records(folder):
        if record["kind"] == "status":
            status = record["value"]
        elif record["kind"] == "rewind":
            step = min(step, record["step"])
            scores = {at: score for at, score in scores.items() if at <= step}
        elif record["kind"] == "metrics":
            step = max(step, record["step"])
            epoch = float(record["values"].get("train/epoch", epoch))
            if SCORE in record["values"]:
                scores[record["step"]] = float(record["values"][SCORE])
    best = min((score, at) for at, score in scores.items()) if scores else (math.nan, 0)
    files = [path.lstat() for path in folder.rglob("*") if not path.is_dir()]
    state = "running" if not mine and is_held(folder) else {"": "new", "running": "killed"}.get(status, status)
    size, changed = sum(file.st_size for file in files), max((file.st_mtime for file in files), default=0.0)
    return RunState(folder, state, step, epoch, _epochs(folder), best[0], best[1], size, changed)


def is_held(folder: Path) -> bool:
    """Whether a training holds the run's folder, on this node or on one that shares the files and their locks.

    On a file system without locks nobody can tell, and the answer is no.
    """
    try:
        with (folder / ".lock").open("rb") as file:
            return take(file, shared=True) == "busy"
    except FileNotFoundError:
        return False
    except OSError:  # a file system that fails: better not to touch the run
        return True


def amount(size: int) -> str:
    """Bytes in words."""
    for power, unit in enumerate(("B", "kB", "MB")):
        if size < 1000 ** (power + 1):
            return f"{size / 1000**power:.0f} {unit}"
    return f"{size / 1e9:.1f} GB"


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    try:
        for record, _ in read_records(folder):
            yield record
    except InputError:
        return


def _epochs(folder: Path) -> int:
    """What run.yaml says; older versions' files too, so they are not read as settings."""
    try:
        content = yaml.safe_load((folder / RUN_YAML).read_text())
        return int(content["epochs"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return 0


def _age(seconds: float) -> str:
    """A time span in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
