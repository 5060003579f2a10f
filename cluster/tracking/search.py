"""A search and its trials to MLflow: one parent run, one child per trial, from one process that the driver starts.

    python -m cluster.tracking.search SEARCH_DIR            follows all journals until its standard input ends

The search's folder has a journal of its own, for the parent. Each trial is a run folder in it with a `trial.json`:

    {"number": 3, "name": "t0003", "key": hex, "values": {key: value}, "ended": seconds or null, "reason": text,
     "status": "waiting" | "finished" | "stopped early" | "failed", ...}

A trial has its child from the moment that it is proposed, and its status from there, so one whose training never
wrote a word is not left as running. Numbers come from its journal, delivered as any run's (see `delivery.py`):
nothing is lost and nothing doubled, whoever dies on the way.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cluster.tracking.delivery import BUSY, LOCK_NAME, Batch, Delivery, Unreachable, run_key, say, wait_for_end_of
from cluster.tracking.files import read_json
from cluster.tracking.handle import LOG_NAME, finish_delivery
from cluster.tracking.journal import JOURNAL_NAME, read_records
from cluster.tracking.settings import TrackingSettings
from poselib.errors import InputError
from shards.locks import take

if TYPE_CHECKING:
    from cluster.tracking.store import Store

TRIAL_RECORD: Final = "trial.json"
_STATUS: Final = {"waiting": "running", "finished": "finished", "stopped early": "stopped", "failed": "failed"}
_QUIET_S: Final = 120.0
"""So long after its end a trial's journal is looked at for last words."""


class TrialDelivery(Delivery):
    """Sends one trial, bit by bit, among others."""

    def __init__(
        self, run_dir: Path, tracking: TrackingSettings, pause: Callable[[float], bool], give_up_s: float
    ) -> None:
        super().__init__(run_dir, tracking, pause, give_up_s)
        self._store: Store | None = None
        self._shown = ""
        self.is_done = False

    def turn(self, parent_id: str, tags: dict[str, str], over: bool) -> None:
        """Send what is new; with `over`, end what nobody drives any more."""
        record = read_json(self.run_dir / TRIAL_RECORD)
        if not record or self.is_done:
            return
        if self._store is None:
            self._key = record["key"]
            self._store = self._insist(self._open)
            first = tags | {"mlflow.parentRunId": parent_id, "tune.trial": str(record["number"]), "tune.kind": "trial"}
            self._send(Batch(tags=first))
        has_journal = (self.run_dir / JOURNAL_NAME).is_file()
        while has_journal and self._send_next(self._store):
            pass
        status = _STATUS[record["status"]]
        if status != self._shown or (over and status == "running"):
            self._show(self._store, record, status, has_journal, over)
            self._shown = status
        self.is_done = status != "running" and time.time() > (record.get("ended") or 0) + _QUIET_S

    def _show(self, store: "Store", record: dict[str, Any], status: str, has_journal: bool, over: bool) -> None:
        if status == "running":
            self._insist(lambda: store.end("stopped", None) if over else store.resume())
            return
        values = {} if has_journal else record["values"]
        self._send(Batch(params=values, tags={"tune.ending": record["status"], "tune.reason": record["reason"]}))
        self._insist(lambda: store.end(status, record.get("ended")))

    def _send(self, batch: Batch) -> None:
        store = self._store
        assert store is not None
        self._insist(lambda: store.send(batch.metrics, batch.params, batch.tags))


class SearchDelivery(Delivery):
    """Sends the search's own journal, and those of its trials in turn."""

    def run(self) -> None:
        """Deliver until the driver is gone and everything has arrived; errors as in `Delivery.run`."""
        self._check_over(0)
        self._key = self._read_key()
        store = self._insist(self._open)
        if self._deadline is None:
            self._insist(store.resume)
        # Beside the runs', whose folder is one higher than the trials'.
        tracking = self.tracking if self.tracking.uri else replace(self.tracking, uri=_local_uri(self.run_dir.parent))
        trials: dict[Path, TrialDelivery] = {}
        while True:
            over = self._deadline is not None
            while self._send_next(store):
                pass
            tags = self._common_tags()
            for path in sorted(self.run_dir.glob(f"t*/{TRIAL_RECORD}")):
                if path.parent not in trials:
                    trials[path.parent] = TrialDelivery(path.parent, tracking, self._pause, self._give_up_s)
                trials[path.parent].turn(store.run_id, tags, over)
            if over:
                break
            self._check_over(2.0)
        self._insist(lambda: store.end(self._ledger.status, self._ledger.status_time))

    def _common_tags(self) -> dict[str, str]:
        """What the search's own journal says of itself, for the trials too: study, searcher, scheduler."""
        told = [record["values"] for record, _ in read_records(self.run_dir) if record["kind"] == "tags"]
        return {key: value for values in told for key, value in values.items() if key.startswith("tune.")}

    def _read_key(self) -> str:
        return run_key(self.run_dir)


def _local_uri(runs_dir: Path) -> str:
    from cluster.tracking.store import local_uri

    return local_uri(runs_dir)


class SearchHandle:
    """The delivery of a search on its way; without tracking all of this does nothing."""

    def __init__(self, folder: Path, tracking: TrackingSettings) -> None:
        self.folder, self.tracking = folder, tracking
        self._process = self._spawn() if tracking.enabled else None

    def finish(self, timeout_s: float = 120.0) -> str:
        """Have the rest delivered; returns one line for the user if MLflow did not get everything."""
        if self._process is None:
            return ""
        code = finish_delivery(self._process, timeout_s)
        if code is not None and code < 0:  # somebody killed it on the way
            code = finish_delivery(self._spawn(), timeout_s)
        if code in (0, BUSY):
            return ""
        where = self.tracking.uri or self.folder.parent / "mlflow.db"
        return (
            f"MLflow at {where} does not have all of {self.folder} yet ({self.folder / LOG_NAME} says why); nothing is"
            f" lost: `pose tune --resume {self.folder.name}` delivers the rest"
        )

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "cluster.tracking.search", str(self.folder.resolve())]
        command += [f"--uri={self.tracking.uri}", f"--experiment={self.tracking.experiment}"]
        with (self.folder / LOG_NAME).open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the driver's terminal is not meant for it
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )


def start_search_delivery(folder: Path, tracking: TrackingSettings) -> SearchHandle:
    """Follow the journals of a search and its trials, and deliver them to MLflow in a process of its own."""
    return SearchHandle(Path(folder), tracking)


def main(arguments: list[str] | None = None) -> int:
    """The delivery process: 0 when MLflow has everything, 1 when not, 3 when another process delivers this search."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.tracking.search", description="Deliver a search to MLflow."
    )
    parser.add_argument("search_dir", type=Path)
    parser.add_argument("--uri", default="", help="MLflow server or database; empty for mlflow.db in the runs folder")
    parser.add_argument("--experiment", default=TrackingSettings.experiment)
    parser.add_argument("--give_up_s", type=float, default=600.0, help="how long to try once the driver is gone")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # when to leave, the driver tells by the pipe
    os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    tracking = TrackingSettings(uri=options.uri, experiment=options.experiment)
    pause = wait_for_end_of(sys.stdin.buffer)
    try:
        with (options.search_dir / LOCK_NAME).open("ab") as lock:
            while take(lock) == "busy":
                if pause(2.0):
                    say("another process delivers this search")
                    return BUSY
            SearchDelivery(options.search_dir, tracking, pause, options.give_up_s).run()
    except (InputError, Unreachable, OSError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
