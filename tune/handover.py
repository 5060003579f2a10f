"""The run folder of a trial between two trainings: waited for, and filled with another trial's state."""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cluster.run_folder import held
from poselib.errors import InputError
from tune.reasons import TrialFailed

STOP_S: Final = 300.0
"""How long a training may take to reach its next step and save."""
_COPIES: Final = 5
"""How often a checkpoint is copied anew that was removed on the way."""


def wait_until_saved(folders: Iterable[Path], timeout_s: float = STOP_S) -> list[Path]:
    """Wait until nobody trains in these folders; returns those in which somebody still does after the timeout."""
    left, deadline = list(folders), time.monotonic() + timeout_s
    while left := [folder for folder in left if not _is_free(folder)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return left


def _is_free(folder: Path) -> bool:
    try:
        with held(folder):
            return True
    except InputError:
        return False


@contextmanager
def held_once_free(folder: Path) -> Iterator[None]:
    """Hold a run's folder as soon as an earlier start, which may still be saving, lets go of it.

    Raises:
        TrialFailed: it does not, or the folder cannot be written.
    """
    wait_until_saved([folder])
    try:
        with held(folder):
            yield
    except InputError as error:
        raise TrialFailed(str(error)) from error


def copy_checkpoint(donor: Path, step: int, to: Path) -> int:
    """Copy a trial's checkpoint at a step, or its newest; returns the step.

    A donor at work removes old ones meanwhile.

    Raises:
        TrialFailed: there is none.
    """
    for _ in range(_COPIES):
        complete = sorted(path.parent for path in (donor / "checkpoints").glob("step-*/complete.json"))
        if not complete:
            break
        wanted = donor / "checkpoints" / f"step-{step:08d}"
        wanted = wanted if wanted in complete else complete[-1]
        shutil.rmtree(to, ignore_errors=True)
        try:
            shutil.copytree(wanted, to / wanted.name)
        except (shutil.Error, FileNotFoundError):
            continue
        return int(wanted.name.removeprefix("step-"))
    raise TrialFailed(f"{donor.name}, from which it was to go on, has no checkpoint that stays")
