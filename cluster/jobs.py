"""`pose jobs` and `pose logs`: what was submitted from here, how it stands, and what its ranks say. No torch here."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.job_records import JobRecord, matching, read_records
from cluster.job_states import State, read_states
from cluster.settings_submit import JobsSettings, LogsSettings
from cluster.tracking import journal
from cluster.tracking.delivery import STATE_NAME
from cluster.tracking.files import read_json
from poselib.errors import InputError

_SPEED: Final = "train/images_per_s"
_LOCAL_PAGES: Final = "http://127.0.0.1:5000"
_PAUSE_S: Final = 0.5
_ASK_EVERY: Final = 6
"""Looks into the logs between two questions to Slurm."""


def list_jobs(settings: JobsSettings) -> None:
    """`pose jobs`: a row for each job, the newest first.

    Raises:
        InputError: there is no such folder.
    """
    records = read_records(settings.jobs_dir)
    console = Console()
    if not records:
        console.print(f"no job in {settings.jobs_dir}; next: pose submit train --config FILE", soft_wrap=True)
        return
    shown = records[: settings.last]
    states = read_states(shown)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("job", "name", "state"):
        table.add_column(column, overflow="fold")
    for column in ("step", "img/s"):
        table.add_column(column, justify="right")
    table.add_column("MLflow", overflow="fold")
    for record in shown:
        step, speed = _progress(record)
        state = states[record.id]
        why = f" ({state.reason})" if state.reason and not state.ended else ""
        cells = (record.id, record.label, state.word + why, step, speed, mlflow_link(record))
        table.add_row(*map(escape, cells))
    console.print(table)
    more = f" of {len(records)}; --last shows more" if len(shown) < len(records) else ""
    local = any(mlflow_link(record).startswith(_LOCAL_PAGES) for record in shown)
    pages = "; links to 127.0.0.1 open beside `pose ui`" if local else ""
    console.print(
        f"{len(shown)} job{'s' * (len(shown) > 1)}{more}{pages}; next: pose logs {shown[0].id}",
        soft_wrap=True,
        highlight=False,
    )


def mlflow_link(record: JobRecord) -> str:
    """Where MLflow shows the job's run; empty before the first delivery.

    A local store's pages are those of `pose ui` at its usual port.
    """
    delivered = read_json(Path(record.run) / STATE_NAME) if record.run else {}
    run_id, uri = str(delivered.get("run_id", "")), str(delivered.get("uri", ""))
    if not run_id:
        return ""
    return f"{uri.rstrip('/') if uri.startswith('http') else _LOCAL_PAGES}/#/runs/{run_id}"


def follow_logs(settings: LogsSettings) -> None:
    """`pose logs`: print what all ranks of a job have said, and go on until it has ended.

    Raises:
        InputError: there is no such job.
    """
    records = matching(read_records(settings.jobs_dir), settings.job)
    tails = _tails(records)
    state = _say_state(records)
    while True:
        _print(tails)
        if not settings.follow:
            break
        if state == "ended":
            break
        for _ in range(_ASK_EVERY):
            time.sleep(_PAUSE_S)
            _print(tails)
        # Twice in a row: between a node's loss and the requeueing, Slurm calls a job ended.
        state = ("ended" if state == "ending" else "ending") if _all_ended(records) else "on"
    for tail in tails:
        tail.rest()


@dataclass
class _Tail:
    """A log that is read as it grows."""

    path: Path
    prefix: str
    offset: int = 0
    held: bytes = field(default=b"")

    def lines(self) -> list[str]:
        """Whole lines since the last look."""
        try:
            with self.path.open("rb") as file:
                if self.offset > os.fstat(file.fileno()).st_size:
                    self.offset, self.held = 0, b""  # written anew
                file.seek(self.offset)
                content = file.read()
        except OSError:
            return []
        self.offset += len(content)
        *whole, self.held = (self.held + content).split(b"\n")
        return [f"{self.prefix}{line.decode(errors='replace')}" for line in whole]

    def rest(self) -> None:
        """Print the last line, if nothing ended it."""
        if self.held:
            print(f"{self.prefix}{self.held.decode(errors='replace')}", flush=True)
            self.held = b""


def _tails(records: Sequence[JobRecord]) -> list[_Tail]:
    """A tail for each log; its prefix names the rank, unless the log does, and the job where there are several."""
    named = [
        (" ".join([record.label] * (len(records) > 1) + [str(rank)] * (not record.labelled)), Path(log))
        for record in records
        for rank, log in enumerate(record.logs)
    ]
    width = max(len(name) for name, _ in named)
    return [_Tail(path, f"{name:>{width}}: " if name else "") for name, path in named]


def _print(tails: Sequence[_Tail]) -> None:
    for tail in tails:
        for line in tail.lines():
            print(line)
    sys.stdout.flush()


def _say_state(records: Sequence[JobRecord]) -> str:
    """Tell of jobs that have not begun; `ended` when all have."""
    states = read_states(records)
    for record in records:
        state = states[record.id]
        if not state.ended and not any(Path(log).exists() for log in record.logs):
            why = f" ({state.reason})" if state.reason else ""
            print(
                f"job {record.id} is {state.word}{why}; its logs come to {Path(record.logs[0]).parent}", file=sys.stderr
            )
    return "ended" if all(states[record.id].ended for record in records) else "on"


def _all_ended(records: Sequence[JobRecord]) -> bool:
    states: dict[str, State] = read_states(records)
    return all(states[record.id].ended for record in records)


def _progress(record: JobRecord) -> tuple[str, str]:
    """The last step and speed that the job's run has logged."""
    if not record.run:
        return "", ""
    try:
        history = journal.read_metrics(Path(record.run))
    except InputError:
        return "", ""
    steps, _ = journal.curve(history, "train/loss")
    _, speeds = journal.curve(history, _SPEED)
    return str(steps[-1]) if steps else "", f"{speeds[-1]:.0f}" if speeds else ""
