"""One `pose train` from the outside: started, followed by its journal, stopped by its own signal. No Ray here."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from cluster.config import dump
from cluster.run_folder import RUN_YAML, held
from cluster.settings import Run
from cluster.tracking.files import read_json, write_json
from cluster.tracking.journal import JOURNAL_NAME, decode_metrics, last_status, read_records
from cluster.weights import BEST, LAST
from poselib.errors import InputError

CONFIG: Final = "train.yaml"
LOG: Final = "train.log"
ENDING: Final = "ending.json"
_STOP_S: Final = 300.0
"""How long a training may take to reach its next step and save."""
_LAUNCHERS: Final = ("SLURM_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "RAY_", "PMI", "TORCHELASTIC")
_MEMORY: Final = ("OutOfMemoryError", "out of memory", "Cannot allocate memory", "MemoryError", "can't allocate memory")


class TrialFailed(Exception):
    """The training ended with an error; the message is its own reason."""


@dataclass(frozen=True)
class Report:
    """What a validation told.

    Attributes:
        step: optimiser steps done.
        epochs: epochs done.
        scores: the search's metrics there.
        last: whether the training has ended with it.
    """

    step: int
    epochs: float
    scores: dict[str, float] = field(default_factory=dict)
    last: bool = False


class Ranks(Protocol):
    """What starts as `pose train`, asked as a process."""

    def poll(self) -> int | None:
        """The exit code; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; raises subprocess.TimeoutExpired."""

    def send_signal(self, number: int, /) -> None:
        """Pass on a signal."""

    def kill(self) -> None:
        """End it at once."""


Launch = Callable[[Path, Path], Ranks]


def launch_here(folder: Path, project: Path) -> Ranks:
    """`pose train` on this machine, which starts its ranks itself."""
    command = [sys.executable, "-m", "tune.child", str(os.getpid()), str(folder / CONFIG)]
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=project,
            env=child_environment(os.environ),
            start_new_session=True,  # Ctrl-C at the search's terminal is the driver's to pass on
        )


class Training:
    """The training of one trial in its run folder.

    Args:
        run: of the trial.
        metrics: names in the journal; whenever the first is logged there is a report.
        project: the folder that relative paths of the run start from.
        launch: starts the ranks of the settings in a folder's train.yaml.
    """

    def __init__(self, run: Run, metrics: tuple[str, ...], project: Path, launch: "Launch") -> None:
        self.run, self.metrics, self.project = run, metrics, project
        self._launch = launch
        self._process: Ranks | None = None
        self._offset, self._seen = 0, set[int]()
        self._latest: dict[str, float] = {}
        self._reported = 0
        failed = read_json(run.folder / ENDING)
        if failed:
            raise TrialFailed(failed["reason"])

    def start(self) -> None:
        """Start the ranks as `pose train` does; a run that stands in the folder goes on."""
        folder = self.run.folder
        folder.mkdir(parents=True, exist_ok=True)
        _wait_until_free(folder)
        (folder / CONFIG).write_text(dump(self.run))
        self._process = self._launch(folder, self.project)

    def next(self) -> Report:
        """Wait for the next validation.

        Raises:
            TrialFailed: the training ended otherwise, or its score is no number.
        """
        if self._process is None:
            self.start()
        assert self._process is not None
        while True:
            code = self._process.poll()
            report = self._read()
            if report is None and code is not None:
                raise self._fail(self._why(code))
            if report is not None:
                bad = [f"{name} is {value}" for name, value in report.scores.items() if not math.isfinite(value)]
                if bad:
                    raise self._fail(f"diverged: {', '.join(bad)} at step {report.step}")
                return self._end(report) if report.epochs >= self.run.epochs else report
            time.sleep(0.2)

    def stop(self) -> None:
        """Have the training save and end, as it does before a preemption."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()  # the ranks end with their launcher
            process.wait()

    def skip_to(self, step: int) -> None:
        """Take reports up to a step as made already."""
        self._reported = step

    def take_over(self, donor: Path, step: int) -> None:
        """Put another trial's state at a step, or its newest, in the place of this one's.

        The journal stays; the training declares void what it holds beyond that step.
        """
        mine, beside = self.run.folder / "checkpoints", self.run.folder / "checkpoints.taken"
        wanted = donor / "checkpoints" / f"step-{step:08d}"
        complete = sorted(path.parent for path in (donor / "checkpoints").glob("step-*/complete.json"))
        if wanted not in complete:
            if not complete:
                raise TrialFailed(f"{donor.name}, from which it was to go on, has no checkpoint")
            wanted = complete[-1]
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(wanted, beside / wanted.name)
        shutil.rmtree(mine, ignore_errors=True)
        beside.replace(mine)
        for name in (BEST, LAST):
            if (donor / name).is_file():
                shutil.copyfile(donor / name, self.run.folder / name)
        # The folder is this trial's, its settings are new: what it computes from here on is meant to differ.
        (self.run.folder / RUN_YAML).unlink(missing_ok=True)
        self._reported = int(wanted.name.removeprefix("step-"))

    def _read(self) -> Report | None:
        """The next validation in the journal that has not been reported."""
        if not (self.run.folder / JOURNAL_NAME).is_file():
            return None
        for record, end in read_records(self.run.folder, self._offset):
            self._offset = end
            if record["kind"] == "rewind":
                self._seen = {step for step in self._seen if step <= record["step"]}
            if record["kind"] != "metrics":
                continue
            entry = decode_metrics(record)
            self._latest |= entry.values
            if self.metrics[0] not in entry.values:
                continue
            self._seen.add(entry.step)
            if entry.step > self._reported:
                self._reported = entry.step
                epochs = min(len(self._seen) * self.run.validate_every, self.run.epochs)
                return Report(entry.step, epochs, {name: self._latest.get(name, math.nan) for name in self.metrics})
        return None

    def _end(self, report: Report) -> Report:
        """The last report, once the training has ended well."""
        assert self._process is not None
        code = self._process.wait()
        if code or last_status(self.run.folder) != "finished":
            raise self._fail(self._why(code))
        return replace(report, last=True)

    def _why(self, code: int) -> str:
        log = self.run.folder / LOG
        return reason(log.read_text(errors="replace") if log.is_file() else "", code)

    def _fail(self, why: str) -> TrialFailed:
        """Stop what is left and note for good why this trial is over."""
        self.stop()
        write_json(self.run.folder / ENDING, {"reason": why})
        return TrialFailed(why)


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


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what other launchers laid out: the ranks are this trial's own."""
    return {name: value for name, value in environ.items() if not name.startswith(_LAUNCHERS)}


def _wait_until_free(folder: Path) -> None:
    """An earlier start, whose search died, may still be saving."""
    deadline = time.monotonic() + _STOP_S
    while True:
        try:
            with held(folder):
                return
        except InputError as error:
            if time.monotonic() > deadline:
                raise TrialFailed(str(error)) from error
            time.sleep(0.5)
