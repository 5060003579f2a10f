"""From the journal to MLflow: one process per run, which training neither waits for nor depends on.

    python -m cluster.tracking.delivery RUN_DIR            follows the journal until its standard input ends
    python -m cluster.tracking.delivery RUN_DIR --once     delivers what is there

The trainer holds the other end of that standard input, so however it ends, the delivery learns of it, sends the
rest, gives the MLflow run its final status and leaves. A server that is down is asked again and again meanwhile.

Nothing is lost: `.delivered.json` holds the offset in the journal up to which MLflow has everything, saved after each
batch. Nothing is doubled: a batch that is sent once more after a crash is byte for byte the same, which MLflow's
database ignores; and of the steps that a resumed run logs again, the first record of a (step, name) is the one that
counts, whichever process sends it. MLflow cannot take a number back, so if a resumed run came to other numbers, MLflow
shows those of the first attempt, and the journal (`read_metrics`) those of the last.
"""

import argparse
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

from cluster.tracking.files import read_json, write_json
from cluster.tracking.journal import decode_metrics, read_records
from cluster.tracking.settings import TrackingSettings
from poselib.errors import InputError
from shards.locks import take

if TYPE_CHECKING:
    from cluster.tracking.store import Store

STATE_NAME: Final = ".delivered.json"
LOCK_NAME: Final = ".delivery.lock"
BUSY: Final = 3
"""Exit code of a delivery that found another one at work."""

_RECORDS_PER_BATCH: Final = 200
_TABLES: Final = 50
"""So many of a run are shown as tables: MLflow keeps their names in one tag."""
_T = TypeVar("_T")


@dataclass
class Batch:
    """What a stretch of the journal adds to the MLflow run."""

    metrics: list[tuple[str, float, float, int]] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: list[tuple[str, str]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)


class Ledger:
    """What a journal, read from its beginning, has told MLflow: a function of the file alone."""

    def __init__(self) -> None:
        self.status = "running"
        self.status_time: float | None = None
        self._points: set[tuple[int, str]] = set()
        self._params: dict[str, Any] = {}
        self._tables: list[str] = []

    def admit(self, record: dict[str, Any], batch: Batch) -> None:
        """Enter the next record, and put what is new in it into the batch."""
        kind = record["kind"]
        if kind == "metrics":
            self._admit_metrics(record, batch)
        elif kind == "params":
            self._admit_params(record, batch)
        elif kind == "tags":
            batch.tags |= record["values"]
        elif kind == "artifact":
            batch.artifacts.append((record["path"], record["folder"]))
        elif kind == "table":
            self._admit_table(record["path"], batch)
        elif kind in ("image", "model"):
            (batch.images if kind == "image" else batch.models).append(record)
        elif kind == "status":
            self.status, self.status_time = record["value"], record["time"]

    def _admit_metrics(self, record: dict[str, Any], batch: Batch) -> None:
        entry = decode_metrics(record)
        for name, value in entry.values.items():
            if (entry.step, name) not in self._points:
                self._points.add((entry.step, name))
                batch.metrics.append((name, value, entry.time, entry.step))

    def _admit_params(self, record: dict[str, Any], batch: Batch) -> None:
        for key, value in record["values"].items():
            if key not in self._params:
                batch.params[key] = self._params[key] = value
            elif self._params[key] != value:
                # MLflow never changes a parameter: what a resumed run changed becomes a tag beside it.
                batch.tags[f"resumed.{key}"] = str(value)

    def _admit_table(self, path: str, batch: Batch) -> None:
        # What MLflow's own `log_table` leaves behind; that would append to a table which is sent again.
        self._tables = list(dict.fromkeys([*self._tables, path]))
        batch.artifacts.append((path, path.rpartition("/")[0]))
        shown = [{"path": table, "type": "table"} for table in self._tables[-_TABLES:]]
        batch.tags["mlflow.loggedArtifacts"] = json.dumps(shown)


class Unreachable(Exception):
    """The store did not take everything within the time left."""


class Delivery:
    """Sends one journal; `pause(s)` waits at most that long and returns True once nothing more will be written."""

    def __init__(self, run_dir: Path, tracking: TrackingSettings, pause: Callable[[float], bool], give_up_s: float):
        self.run_dir = run_dir.resolve()
        self.tracking = tracking
        self._pause = pause
        self._give_up_s = give_up_s
        self._deadline: float | None = None
        self._key = ""
        self._ledger = Ledger()
        self._offset = 0

    def run(self) -> None:
        """Deliver until nothing more will be written and everything has arrived.

        Raises:
            InputError: no journal, or the store refuses what it is given.
            Unreachable: the time for trying is over.
        """
        self._check_over(0)
        self._key = run_key(self.run_dir)
        store = self._insist(self._open)
        if self._deadline is None:
            self._insist(store.resume)
        while True:
            over = self._deadline is not None
            if self._send_next(store):
                continue
            if over:
                break
            self._check_over(2.0)
        self._insist(lambda: store.end(self._ledger.status, self._ledger.status_time))

    def _open(self) -> "Store":
        from cluster.tracking.store import Store

        store = Store(self.run_dir.parent, self.tracking, self._key, self.run_dir.name)
        state = read_json(self.run_dir / STATE_NAME)
        self._offset = 0
        self._ledger = Ledger()
        if state.get("run_id") == store.run_id and state.get("uri") == self.tracking.uri:
            # The ledger needs what was sent before, to know it again.
            for record, end in read_records(self.run_dir):
                if end > state["offset"]:
                    break
                self._ledger.admit(record, Batch())
                self._offset = end
        return store

    def _send_next(self, store: "Store") -> bool:
        """Deliver the next stretch of the journal; False when there is none."""
        batch = Batch()
        news = list(islice(read_records(self.run_dir, self._offset), _RECORDS_PER_BATCH))
        if not news:
            return False
        for record, _ in news:
            self._ledger.admit(record, batch)
        self._insist(lambda: store.send(batch.metrics, batch.params, batch.tags))
        for name, upload in _uploads(store, batch):
            self._upload(name, upload)
        self._offset = news[-1][1]
        write_json(
            self.run_dir / STATE_NAME,
            {"uri": self.tracking.uri, "run_id": store.run_id, "offset": self._offset},
        )
        return True

    def _upload(self, name: str, upload: Callable[[Path], None]) -> None:
        path = (self.run_dir / name).resolve()
        if not path.is_relative_to(self.run_dir) or not os.access(path, os.R_OK):
            say(f"artifact {name} cannot be read in the run folder any more: passed over")
            return
        self._insist(lambda: upload(path))

    def _insist(self, action: Callable[[], _T]) -> _T:
        """Do it, again and again while the store is out of reach."""
        from cluster.tracking.store import UNREACHABLE, is_permanent

        delay = 1.0
        while True:
            try:
                return action()
            except UNREACHABLE as error:
                line = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
                if is_permanent(error):
                    raise InputError(f"MLflow at {self._where} refuses run {self.run_dir.name}: {line}") from error
                say(f"trying again: {line}")
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise Unreachable(f"MLflow at {self._where} cannot be reached")
            self._check_over(delay)
            delay = min(2 * delay, 30.0)

    def _check_over(self, wait_s: float) -> None:
        if self._deadline is not None:
            time.sleep(min(wait_s, 2.0))
        elif self._pause(wait_s):
            self._deadline = time.monotonic() + self._give_up_s

    @property
    def _where(self) -> str:
        return self.tracking.uri or str(self.run_dir.parent / "mlflow.db")


def _uploads(store: "Store", batch: Batch) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """The files of a batch by their place in the run folder, each with what sends it."""
    for path, folder in dict.fromkeys(batch.artifacts):
        yield path, partial(store.upload, folder=folder)
    for one in batch.images:
        yield one["path"], partial(store.image, name=one["name"], step=one["step"], time=one["time"])
    for one in batch.models[-1:]:
        yield one["path"], partial(store.model, step=one["step"])


def run_key(run_dir: Path) -> str:
    """The identity that a run's journal begins with; InputError where it has none yet."""
    for record, _ in read_records(run_dir):
        if record["kind"] == "run":
            return str(record["key"])
    raise InputError(f"{run_dir} has an empty journal: a run writes its key there first")


def say(line: str) -> None:
    """A line of the delivery's log."""
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), line, file=sys.stderr, flush=True)


def wait_for_end_of(stream: IO[bytes]) -> Callable[[float], bool]:
    """A pause that ends early, with True, when the stream says anything or ends."""

    def pause(seconds: float) -> bool:
        ready, _, _ = select.select([stream], [], [], seconds)
        return bool(ready)

    return pause


def main(arguments: list[str] | None = None) -> int:
    """The delivery process: 0 when MLflow has everything, 1 when not, 3 when another process delivers this run."""
    parser = argparse.ArgumentParser(prog="python -m cluster.tracking.delivery", description="Deliver a run to MLflow.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--uri", default="", help="MLflow server or database; empty for mlflow.db in the runs folder")
    parser.add_argument("--experiment", default=TrackingSettings.experiment)
    parser.add_argument("--once", action="store_true", help="deliver what is there, then leave")
    parser.add_argument("--give_up_s", type=float, default=600.0, help="how long to try once the trainer is gone")
    options = parser.parse_args(arguments)
    # A batch system sends its signals to the whole job; when to leave, the trainer tells by the pipe.
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # MLflow would retry by itself for minutes, also what must not be repeated blindly, and report to its makers.
    os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    tracking = TrackingSettings(uri=options.uri, experiment=options.experiment)
    pause = (lambda _: True) if options.once else wait_for_end_of(sys.stdin.buffer)
    try:
        with (options.run_dir / LOCK_NAME).open("ab") as lock:
            while take(lock) == "busy":
                # That of an older start, most often, which ends soon.
                if pause(2.0):
                    say("another process delivers this run")
                    return BUSY
            Delivery(options.run_dir, tracking, pause, options.give_up_s).run()
    except (InputError, Unreachable, OSError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
