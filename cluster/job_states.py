"""How jobs stand: Slurm's queue first, its accounting where there is one, else what their files tell. No torch here."""

import os
import re
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.job_records import JobRecord
from cluster.runs import is_held
from cluster.tracking.journal import last_status
from poselib.errors import InputError

ENDED: Final = frozenset(
    {
        *("completed", "failed", "cancelled", "timeout", "node_fail", "out_of_memory", "boot_fail", "deadline"),
        *("finished", "stopped", "ended"),
    }
)
"""Words for a job that runs no more and is not to run again."""


@dataclass(frozen=True)
class State:
    """How a job stands.

    Attributes:
        word: Slurm's own in small letters, or the run's; `unknown` where nobody tells.
        reason: why it waits, or where it runs.
    """

    word: str
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come."""
        return self.word in ENDED


def read_states(records: Sequence[JobRecord]) -> dict[str, State]:
    """The state of each job by its id."""
    slurm = [record for record in records if record.executor == "slurm"]
    queue = _queue() if slurm else None
    states = dict(queue or {})
    missing = [record.id for record in slurm if record.id not in states]
    states |= _accounting(missing) if missing else {}
    for record in records:
        if record.executor != "slurm":
            states[record.id] = _of_process(record)
        elif record.id not in states:
            states[record.id] = _of_files(record, gone=queue is not None)
    return states


def _queue() -> dict[str, State] | None:
    """What squeue knows of this user's jobs, ended ones of the last minutes too; None where it does not answer."""
    shown = _ask("squeue", "--noheader", "--me", "--array", "--states=all", "--format=%i|%T|%R")
    if shown is None:
        return None
    found = {}
    for line in shown.splitlines():
        job, _, rest = line.partition("|")
        word, _, reason = rest.partition("|")
        found[job.strip()] = State(word.lower(), reason.strip("() "))
    return found


def _accounting(jobs: Sequence[str]) -> dict[str, State]:
    """What sacct knows; nothing where there is no accounting."""
    shown = _ask(
        "sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State", f"--jobs={','.join(jobs)}"
    )
    pairs = (line.partition("|") for line in (shown or "").splitlines())
    words = {job: state.split(" ")[0].lower() for job, _, state in pairs if job in set(jobs)}
    # One that is preempted and no longer in the queue does not come back.
    return {job: State("cancelled" if word == "preempted" else word) for job, word in words.items()}


def _of_process(record: JobRecord) -> State:
    """A job of this machine is a process."""
    if record.host != socket.gethostname():
        return State("unknown", f"on {record.host}")
    try:
        words = Path(f"/proc/{record.id}/cmdline").read_bytes()
    except OSError:
        words = b""
    return State("running") if b"submitit" in words else _of_files(record, gone=True)


def _of_files(record: JobRecord, gone: bool) -> State:
    """What its run says; `gone` when the job is known not to be there any more."""
    word = ""
    if record.run:
        try:
            word = last_status(Path(record.run))
        except InputError:
            word = ""
        if word == "running" and not is_held(Path(record.run)):
            word = "failed"  # it was killed before it could say so
    if word == "finished" or (gone and word in ("failed", "stopped")):
        return State(word)
    if gone:
        return State("ended")
    return State("unknown", f"its run says {word}" if word else "")


def _ask(*words: str) -> str | None:
    environ = {name: value for name, value in os.environ.items() if not re.fullmatch(r"(SQUEUE|SACCT)_\w+", name)}
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, env=environ)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
