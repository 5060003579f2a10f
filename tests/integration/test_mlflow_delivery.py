import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cluster.tracking.delivery import STATE_NAME
from cluster.tracking.files import read_json
from cluster.tracking.handle import Handle, deliver, pending, start_delivery
from cluster.tracking.journal import JOURNAL_NAME, Journal, read_metrics
from cluster.tracking.settings import TrackingSettings
from poselib.errors import InputError

pytestmark = pytest.mark.integration

LOCAL = TrackingSettings()


def query(runs_dir: Path, sql: str, *values: object) -> list[tuple]:
    with closing(sqlite3.connect(runs_dir / "mlflow.db")) as connection:
        return connection.execute(sql, values).fetchall()


def status(runs_dir: Path, name: str) -> list[str]:
    return [row[0] for row in query(runs_dir, "select status from runs where name = ?", name)]


def points(runs_dir: Path, name: str) -> list[tuple[int, str]]:
    """Every (step, metric) that MLflow holds of a run, doubled where it is doubled."""
    sql = "select m.step, m.key from metrics m join runs r on r.run_uuid = m.run_uuid where r.name = ?"
    return query(runs_dir, sql, name)


def logged(run_dir: Path) -> list[tuple[int, str]]:
    return [(entry.step, name) for entry in read_metrics(run_dir) for name in entry.values]


def wait_until(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def offset(run_dir: Path) -> int:
    return read_json(run_dir / STATE_NAME).get("offset", 0)


def test_two_runs_at_once_on_a_new_store_and_kills_at_random_points(tmp_path: Path) -> None:
    """Neither run loses or doubles a number, though one delivery is killed again and again, and the run is rewound."""
    quiet, rough = tmp_path / "quiet", tmp_path / "rough"
    chance = random.Random(0)
    with Journal(quiet) as calm, Journal(rough) as journal:
        handles = [start_delivery(quiet, LOCAL), start_delivery(rough, LOCAL)]  # both want to create the store
        calm.metrics(1, {"train/loss": 1.0})
        calm.status("finished")
        assert handles[0].finish() == ""
        for part in range(2):
            before = offset(rough)
            journal.rewind(1500 * part - 300)
            for step in range(max(0, 1500 * part - 299), 1500 * (part + 1)):
                journal.metrics(step, {f"train/{name}": step + 0.5 for name in "abcd"})
            wait_until(lambda before=before: offset(rough) > before)
            time.sleep(chance.uniform(0, 0.3))
            handles[1].abandon()
            handles[1] = start_delivery(rough, LOCAL)
        # One more kill, just before the end: `finish` delivers what that one left.
        os.kill(handles[1].pid, signal.SIGKILL)
        journal.metrics(3000, {"val/mpjpe_mm": 50.0})
        journal.status("finished")
        assert handles[1].finish() == ""
    assert sorted(points(tmp_path, "rough")) == sorted(logged(rough))
    assert points(tmp_path, "quiet") == [(1, "train/loss")]
    assert status(tmp_path, "rough") == ["FINISHED"]
    assert status(tmp_path, "quiet") == ["FINISHED"]
    assert offset(rough) == (rough / JOURNAL_NAME).stat().st_size
    assert pending(rough) == 0
    assert not (Path.cwd() / "mlruns").exists()


def test_a_delivery_that_is_killed_while_it_makes_the_store_leaves_none(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Journal(run) as journal:
        journal.metrics(1, {"train/loss": 1.0})
        journal.status("finished")
    first = start_delivery(run, LOCAL)
    unfinished = tmp_path / ".mlflow.db.partial"
    wait_until(lambda: unfinished.exists() and unfinished.stat().st_size)
    first.abandon()
    assert not (tmp_path / "mlflow.db").exists()
    deliver(run, LOCAL)
    assert points(tmp_path, "run") == [(1, "train/loss")]


def test_a_dead_trainer_leaves_no_running_run(tmp_path: Path) -> None:
    """Killed with -9, a trainer says nothing more; its pipe does."""
    run_dir = tmp_path / "dead"
    program = (
        "import os, sys, time; from pathlib import Path\n"
        "from cluster.tracking.handle import start_delivery\n"
        "from cluster.tracking.journal import Journal\n"
        "from cluster.tracking.settings import TrackingSettings\n"
        "run_dir = Path(sys.argv[1]); journal = Journal(run_dir); journal.status('running')\n"
        "handle = start_delivery(run_dir, TrackingSettings())\n"
        "[journal.metrics(step, {'loss': 1.0}) for step in range(20)]\n"
        "print(handle.pid, flush=True); time.sleep(120)\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", program, str(run_dir)], stdout=subprocess.PIPE)
    with trainer:
        pid = int(trainer.stdout.readline())
        wait_until(lambda: offset(run_dir) > 0)
        assert status(tmp_path, "dead") == ["RUNNING"]
        trainer.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or b"Z" in Path(f"/proc/{pid}/stat").read_bytes())
    assert status(tmp_path, "dead") == ["KILLED"]
    # Resumed and stopped in good order, it is the same MLflow run; the file it names is there too.
    (run_dir / "score.html").write_text("<p>good</p>")
    with Journal(run_dir) as journal:
        journal.rewind(9)
        for step in range(10, 30):
            journal.metrics(step, {"loss": 1.0})
        journal.artifact("score.html")
        journal.artifact("gone.html")
        journal.status("failed")
    # Without its memory of what was sent, a delivery sends all of it again, and doubles nothing.
    (run_dir / STATE_NAME).unlink()
    deliver(run_dir, LOCAL)
    assert status(tmp_path, "dead") == ["FAILED"]
    assert sorted(points(tmp_path, "dead")) == [(step, "loss") for step in range(30)]
    assert [path.read_text() for path in (tmp_path / "mlflow-artifacts").rglob("score.html")] == ["<p>good</p>"]


@contextmanager
def mlflow_page(runs_dir: Path, port: int) -> Iterator[None]:
    """`pose ui` as a process."""
    program = (
        "import sys; from pathlib import Path; from cluster.tracking.ui import ui\n"
        "ui(Path(sys.argv[1]), int(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", program, str(runs_dir), str(port)]
    with (runs_dir / "ui.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def test_a_server_that_comes_up_late_gets_everything(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = TrackingSettings(uri=f"http://127.0.0.1:{port}", experiment="late")

    # `pose ui` serves a store that a local run has made.
    with Journal(tmp_path / "local") as journal:
        journal.status("stopped")
    deliver(tmp_path / "local", LOCAL)
    assert status(tmp_path, "local") == ["KILLED"]

    run_dir = tmp_path / "late"
    (run_dir / "pictures").mkdir(parents=True)
    (run_dir / "pictures" / "a.txt").write_text("picture")
    with Journal(run_dir) as journal:
        journal.status("running")
        journal.params({"model.depth": 64})
        for step in range(600):
            journal.metrics(step, {"train/loss": float("nan") if step == 7 else 1.0, "val/pck@150": 0.5})
        assert_gives_up_in_one_line(start_delivery(run_dir, server))
        with pytest.raises(InputError, match="nothing is lost"):
            deliver(run_dir, server, timeout_s=0.1)
        handle = start_delivery(run_dir, server)
        with mlflow_page(tmp_path, port):
            wait_until(lambda: offset(run_dir) > 0)
            assert status(tmp_path, "late") == ["RUNNING"]
            journal.artifact("pictures")
            journal.status("finished")
            assert handle.finish() == ""
    assert status(tmp_path, "late") == ["FINISHED"]
    expected = [(step, name) for step in range(600) for name in ("train/loss", "val/pck_150")]
    assert sorted(points(tmp_path, "late")) == sorted(expected)
    assert query(tmp_path, "select step from metrics where is_nan") == [(7,)]
    assert query(tmp_path, "select key, value from params") == [("model.depth", "64")]
    assert [path.read_text() for path in (tmp_path / "mlflow-artifacts").rglob("a.txt")] == ["picture"]


def assert_gives_up_in_one_line(handle: Handle) -> None:
    wait_until(lambda: b"trying again" in (handle.run_dir / "delivery.log").read_bytes())
    left = handle.finish(timeout_s=0.5)
    assert left.startswith("603 records of")
    assert "trying again" in left
    assert "\n" not in left
