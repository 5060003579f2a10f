"""Why a trial is over, in one line: noted in its folder by whoever drives its training."""

import signal
from pathlib import Path
from typing import Final

from cluster.tracking.files import read_json, write_json

_ENDING: Final = "ending.json"
_MEMORY: Final = ("OutOfMemoryError", "out of memory", "Cannot allocate memory", "MemoryError", "can't allocate memory")


class TrialFailed(Exception):
    """The training ended with an error; the message is its own reason."""


def note_failure(folder: Path, why: str) -> None:
    """Note for good why a trial is over."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _ENDING, {"reason": why})


def noted_failure(folder: Path) -> str:
    """Why the trial in a folder is over for good; empty where it is not."""
    return str(read_json(folder / _ENDING).get("reason", ""))


def reason(log: str, code: int) -> str:
    """Why a training has ended, from what it wrote and its exit code, in one line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    memory = [line for line in lines if any(word in line for word in _MEMORY)]
    if memory:
        return f"out of memory: {memory[-1][:300]}"
    if code == -signal.SIGKILL or any("killed by SIGKILL" in line for line in lines[-3:]):
        return "out of memory, most likely: the system killed a rank (SIGKILL)"
    said = [line.removeprefix("pose train: ") for line in lines if line.startswith("pose train: ")]
    said = [line for line in said if not line.startswith("training ended early")] or said
    if any(f"is {word}" in line for line in said for word in ("nan", "inf")):
        return f"diverged: {said[-1][:300]}"
    if code == 0:
        return "its training was stopped from outside"
    return (said or lines or [f"exit code {code}"])[-1][:300]
