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

from cluster.config import dump, load
from cluster.run_folder import RUN_YAML
from cluster.settings import Run
from cluster.tracking.journal import JOURNAL_NAME, decode_metrics, last_status, read_metrics, read_records
from tune.handover import STOP_S, copy_checkpoint, held_once_free
from tune.reasons import TrialFailed, note_failure, noted_failure, reason

CONFIG: Final = "train.yaml"
LOG: Final = "train.log"
_EPOCH: Final = "train/epoch"
_LAUNCHERS: Final = ("SLURM_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "RAY_", "PMI", "TORCHELASTIC")


@dataclass(frozen=True)
class Report:
    """What a validation told.

    Attributes:
        step: optimiser steps done.
        epochs: epochs done.
        scores: the search's metrics there, as far as they have been logged; none where a state that was taken over
            stood at the end already.
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


def end(process: Ranks) -> None:
    """Have a training save and end; one that does not is killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()  # the ranks end with their launcher
        process.wait()


class Training:
    """The training of one trial in its run folder.

    Args:
        run: of the trial.
        metrics: names in the journal; whenever the first is logged there is a report.
        project: the folder that relative paths of the run start from.
        launch: starts the ranks of the settings in a folder's train.yaml.
        changes: whether the settings may be others than at the folder's last start.
    """

    def __init__(
        self, run: Run, metrics: tuple[str, ...], project: Path, launch: "Launch", changes: bool = False
    ) -> None:
        self.run, self.metrics, self.project = run, metrics, project
        self._launch, self._changes = launch, changes
        self._process: Ranks | None = None
        self._offset, self._seen = 0, set[int]()
        self._latest: dict[str, float] = {}
        self._epoch_at = (0, 0.0)
        self._last: Report | None = None
        self._reported = self._given = self._log_start = 0
        failed = noted_failure(run.folder)
        if failed:
            raise TrialFailed(failed)

    def start(self) -> None:
        """Start the ranks as `pose train` does; a run that stands in the folder goes on."""
        folder = self.run.folder
        with held_once_free(folder):
            if self._changes and (folder / RUN_YAML).is_file():
                batch = replace(self.run.batch, global_=load(Run, folder / RUN_YAML).batch.global_)
                self.run = replace(self.run, batch=batch)  # steps stay what they were
                (folder / RUN_YAML).unlink()  # what is computed from here on is meant to differ
            (folder / CONFIG).write_text(dump(self.run))
            log = folder / LOG
            self._log_start = log.stat().st_size if log.is_file() else 0
        self._process = self._launch(folder, self.project)

    def next(self) -> Report:
        """Wait for the next validation.

        Raises:
            TrialFailed: the training ended otherwise, its score is no number, or a metric was never logged.
        """
        if self._process is None:
            self.start()
        assert self._process is not None
        while True:
            code = self._process.poll()
            report = self._read()
            if report is not None:
                self._sound(report)
                return self._end(self._process.wait()) if report.epochs >= self.run.epochs else report
            if code is not None:
                return self._end(code)
            time.sleep(0.2)

    def stop(self) -> None:
        """Have the training save and end, as it does before a preemption."""
        process, self._process = self._process, None
        if process is not None:
            end(process)

    def skip_to(self, step: int) -> None:
        """Take reports up to a step as made already."""
        self._reported = self._given = step

    def take_over(self, donor: Path, step: int) -> None:
        """Put another trial's state at a step, or its newest, in the place of this one's.

        The journal stays; the training declares void what it holds beyond that step.

        Raises:
            TrialFailed: there is no such state, or an earlier start of this trial does not end.
        """
        from cluster.weights import BEST, LAST  # torch takes seconds to import, and few trials take over another's

        folder, beside = self.run.folder, self.run.folder / "checkpoints.taken"
        with held_once_free(folder):
            taken = copy_checkpoint(donor, step, beside)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            beside.replace(folder / "checkpoints")
            for name in (BEST, LAST):
                if (donor / name).is_file():
                    shutil.copyfile(donor / name, folder / name)
        self._changes = True
        self.skip_to(taken)
        self._epoch_at = _last_epoch(donor)

    def _read(self) -> Report | None:
        """The next validation in the journal that has not been reported."""
        if not (self.run.folder / JOURNAL_NAME).is_file():
            return None
        for record, end in read_records(self.run.folder, self._offset):
            self._offset = end
            if record["kind"] == "rewind":
                self._seen = {step for step in self._seen if step <= record["step"]}
                self._last = self._last if self._last and self._last.step <= record["step"] else None
            if record["kind"] != "metrics":
                continue
            entry = decode_metrics(record)
            self._latest |= entry.values
            if _EPOCH in entry.values:
                self._epoch_at = entry.step, entry.values[_EPOCH]
            if self.metrics[0] not in entry.values:
                continue
            self._seen.add(entry.step)
            scores = {name: self._latest[name] for name in self.metrics if name in self._latest}
            report = Report(entry.step, self._epochs(entry.step), scores)
            self._last = report if entry.step >= self._given else None
            if entry.step > self._reported:
                self._reported = entry.step
                return report
        return None

    def _epochs(self, step: int) -> float:
        """Whole epochs after so many steps; an epoch always has as many. Counted where the journal has not told yet."""
        at, epoch = self._epoch_at
        done = math.floor(step * epoch / at + 1e-6) if at else len(self._seen) * self.run.validate_every
        return min(done, self.run.epochs)

    def _end(self, code: int) -> Report:
        """The last report, of a training that has ended with this code."""
        while (report := self._read()) is not None:  # what it wrote between a look at the journal and its end
            self._sound(report)
        folder = self.run.folder
        status = last_status(folder) if (folder / JOURNAL_NAME).is_file() else ""
        if code == 0 and status == "stopped":
            raise TrialFailed("its training was stopped from outside")  # with a checkpoint: it may go on from there
        if code or status != "finished":
            raise self._fail(self._why(code))
        missing = [name for name in self.metrics if name not in self._latest]
        if missing and not self._given:
            raise self._fail(f"{', '.join(missing)}: not logged by the training")
        return replace(self._last or Report(self._given, 0.0), epochs=self.run.epochs, last=True)

    def _sound(self, report: Report) -> None:
        """See that the scores are numbers."""
        bad = [f"{name} is {value}" for name, value in report.scores.items() if not math.isfinite(value)]
        if bad:
            raise self._fail(f"diverged: {', '.join(bad)} at step {report.step}")

    def _why(self, code: int) -> str:
        path = self.run.folder / LOG
        log = path.read_bytes()[self._log_start :] if path.is_file() else b""  # of this start alone
        return reason(log.decode(errors="replace"), code)

    def _fail(self, why: str) -> TrialFailed:
        """Stop what is left and note for good why this trial is over."""
        self.stop()
        note_failure(self.run.folder, why)
        return TrialFailed(why)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what other launchers laid out: the ranks are this trial's own."""
    return {name: value for name, value in environ.items() if not name.startswith(_LAUNCHERS)}


def _last_epoch(folder: Path) -> tuple[int, float]:
    """A step of a run and the epochs done after it; zeros where its journal does not tell."""
    if (folder / JOURNAL_NAME).is_file():
        for entry in reversed(read_metrics(folder)):
            if _EPOCH in entry.values:
                return entry.step, entry.values[_EPOCH]
    return 0, 0.0
