"""Starting and ending the delivery process from the trainer's side."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Final, Self

import yaml

from cluster.config import construct
from cluster.tracking.delivery import BUSY, STATE_NAME
from cluster.tracking.files import read_json
from cluster.tracking.journal import JOURNAL_NAME, read_records
from cluster.tracking.settings import TrackingSettings
from poselib.errors import InputError

LOG_NAME: Final = "delivery.log"
DELIVERY_S: Final = 60.0
"""How long the end of a training waits for its delivery, beside the time for a model."""
UPLOAD_BYTES_PER_S: Final = 5e6
"""A slow network; models are given time by it."""


class Handle:
    """A delivery on its way. Its process belongs to no terminal; its output goes to `delivery.log` in the run folder.

    Where tracking is not enabled there is no process, and all of this does nothing.
    """

    def __init__(self, run_dir: Path, tracking: TrackingSettings) -> None:
        self.run_dir = run_dir
        self.tracking = tracking
        self._process = _spawn(run_dir, tracking) if tracking.enabled else None

    def finish(self, timeout_s: float = DELIVERY_S) -> str:
        """Have the rest delivered; to be called after the final status is in the journal.

        Returns an empty text, or one line for the user that says what MLflow did not get. Training has not failed
        then: `deliver` sends the rest at any later time. Where another process delivers this run, it takes the rest.
        """
        if self._process is None:
            return ""
        code = finish_delivery(self._process, timeout_s)
        if code is not None and code < 0:
            # Somebody killed it on the way: whatever is missing is sent now.
            code = finish_delivery(_spawn(self.run_dir, self.tracking), timeout_s)
        if code in (0, BUSY):
            return ""
        where = self.tracking.uri or self.run_dir.parent / "mlflow.db"
        return (
            f"{pending(self.run_dir)} records of {self.run_dir} are not in MLflow at {where} yet "
            f"({_last_line(self.run_dir / LOG_NAME)}); nothing is lost, deliver them later"
        )

    @property
    def pid(self) -> int | None:
        """The delivery process."""
        return None if self._process is None else self._process.pid

    def abandon(self) -> None:
        """Kill the delivery where it stands, which is safe at any point."""
        if self._process is not None:
            self._process.kill()
            finish_delivery(self._process, 10.0)

    def __enter__(self) -> Self:
        """The handle itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Have the rest delivered, within the default time."""
        self.finish()


def start_delivery(run_dir: Path, tracking: TrackingSettings) -> Handle:
    """Follow the journal of a run, which must be there, and deliver it to MLflow in a process of its own."""
    return Handle(Path(run_dir), tracking)


def deliver(run_dir: Path, tracking: TrackingSettings, timeout_s: float = 600.0) -> None:
    """Deliver what MLflow does not have yet of a run that is over.

    Raises:
        InputError: no such run, or MLflow did not take everything within `timeout_s`.
    """
    next(read_records(run_dir), None)
    left = start_delivery(run_dir, tracking).finish(timeout_s)
    if left:
        raise InputError(left)


def tracking_of(run_dir: Path) -> TrackingSettings:
    """The store that a run goes to.

    Raises:
        InputError: it is no run, or its run.yaml is damaged.
    """
    path = run_dir / "run.yaml"
    if not path.is_file() or not (run_dir / JOURNAL_NAME).is_file():
        raise InputError(f"{run_dir} is no run: it holds no run.yaml and {JOURNAL_NAME}; give a run's folder")
    try:
        values = (yaml.safe_load(path.read_text()) or {}).get("tracking") or {}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise InputError(f"{path}: not valid YAML; write it anew by resuming the run") from error
    return construct(TrackingSettings, yaml.safe_dump(values), str(path))


def pending(run_dir: Path) -> int:
    """How many records of a run wait for their delivery."""
    return sum(1 for _ in read_records(run_dir, read_json(run_dir / STATE_NAME).get("offset", 0)))


def _spawn(run_dir: Path, tracking: TrackingSettings) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cluster.tracking.delivery", str(run_dir.resolve())]
    command += [f"--uri={tracking.uri}", f"--experiment={tracking.experiment}"]
    with (run_dir / LOG_NAME).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C at the trainer's terminal is not meant for it
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def finish_delivery(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """The exit code; None where the time ran out and the process, which is safe at any point, was killed."""
    stream: IO[bytes] | None = process.stdin
    if stream is not None and not stream.closed:
        try:
            # A word besides the end: a forked child of the trainer may still hold this pipe open.
            stream.write(b"\n")
            stream.close()
        except OSError:
            pass  # it is gone already
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1][:300] if lines else "no reason given"
