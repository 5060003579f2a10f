"""One training of a study, and its score: `pose train` and `pose eval` in processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster.config import dump
from cluster.preemption import StopFlag
from cluster.settings import Run
from cluster.tracking.journal import JOURNAL_NAME, Journal, last_status, read_metrics
from tune.study_cases import SCORE, Case
from tune.training import CONFIG, LOG, TrialFailed, child_environment, end, launch_here, reason

_LOOK_S: Final = 1.0


def tag(case: Case, run: Run, study: str, scale: str) -> None:
    """Name the study in a run's journal before it begins; MLflow gets it from there."""
    if (run.folder / JOURNAL_NAME).is_file():
        return
    with Journal(run.folder) as journal:
        journal.tags(
            {"tune.study": study, "tune.kind": "study run", "study.scale": scale, "study.rows": ", ".join(case.rows)}
        )


def train_and_score(case: Case, seed: int, project: Path, show: Callable[[float], None], stop: StopFlag) -> None:
    """Bring a training to its end, from wherever it stands, and score it where its rows ask for that.

    Args:
        case: what is trained.
        seed: of it.
        project: the folder that relative paths of the run start from.
        show: told how far it is, 0 to 1.
        stop: once requested, the training saves and ends.

    Raises:
        TrialFailed: with the reason in one line, a stop among them.
    """
    run = case.of_seed(seed)
    if not (run.folder / JOURNAL_NAME).is_file() or last_status(run.folder) != "finished":
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / CONFIG).write_text(dump(run))
        (run.folder / LOG).unlink(missing_ok=True)  # the reason of an earlier failure is no reason of this one
        _follow(run, project, show, stop)
    if case.tests and not (run.folder / SCORE).is_file():
        _score(run, project, stop)


def _follow(run: Run, project: Path, show: Callable[[float], None], stop: StopFlag) -> None:
    """Start the ranks and wait; whatever ends the waiting has them save and end."""
    process = launch_here(run.folder, project)
    try:
        while process.poll() is None and not stop.requested:
            show(_epochs_done(run.folder) / run.epochs)
            time.sleep(_LOOK_S)
    finally:
        end(process)
    if process.wait() or last_status(run.folder) != "finished":
        raise TrialFailed(reason((run.folder / LOG).read_text(errors="replace"), process.wait()))


def _score(run: Run, project: Path, stop: StopFlag) -> None:
    """Score it in a process that a stop ends at once."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pose", "eval", str(run.folder), "--threads", str(run.engine.threads)],
        cwd=project,
        env=child_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    output = errors = ""
    try:
        while process.returncode is None and not stop.requested:
            with suppress(subprocess.TimeoutExpired):
                output, errors = process.communicate(timeout=_LOOK_S)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        said = (errors or output).strip().splitlines()
        raise TrialFailed(f"its score: {said[-1] if said else f'exit code {process.returncode}'}")


def _epochs_done(folder: Path) -> float:
    """How far a training has come, by its journal."""
    if not (folder / JOURNAL_NAME).is_file():
        return 0.0
    return max((entry.values.get("train/epoch", 0.0) for entry in read_metrics(folder)), default=0.0)
