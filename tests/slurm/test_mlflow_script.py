"""slurm/mlflow.sh as a job: others reach it by password; asked to stop, it comes up again with what it had."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cluster.tracking.delivery import STATE_NAME
from cluster.tracking.journal import Journal
from lab import Lab, LabError, wait_until

pytestmark = pytest.mark.slurm

SCRIPT = Path(__file__).parents[2] / "slurm" / "mlflow.sh"
URI = "http://n1:5000"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def wait_up(lab: Lab, job: int, seconds: float = 120) -> None:
    """Until the server answers another node."""
    program = f"import urllib.request; urllib.request.urlopen('{URI}/health', timeout=5)"
    wait_until(
        lambda: lab.run([sys.executable, "-c", program], node="n2", check=False).returncode == 0,
        seconds,
        lambda: f"no server after {seconds:.0f} s\n{lab.output(job)}",
        pause=1,
    )


def deliver(lab: Lab, run: Path, password: str) -> None:
    """From another node, all of the run, whatever was sent before."""
    (run / STATE_NAME).unlink(missing_ok=True)
    words = ("-m", "cluster.tracking.delivery", run, "--once", "--uri", URI, "--give_up_s", "30")
    env = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": password}
    lab.run([sys.executable, *words], node="n2", env=env, timeout=120)


@pytest.mark.drill
def test_a_server_that_is_asked_to_stop_comes_up_again_with_what_it_had(lab: Lab, project: Path) -> None:
    folder, run = project / "mlflow", project / "small"
    with Journal(run) as journal:
        journal.metrics(1, {"train/loss": 1.0})
        journal.artifact("metrics.jsonl")
        journal.status("finished")
    job = lab.sbatch("--nodelist=n1", SCRIPT, folder, "--host", "n1", cwd=project)
    try:
        wait_up(lab, job)
        password = (folder / "admin-password").read_text().strip()
        assert password not in lab.output(job)
        with pytest.raises(LabError, match="401"):
            deliver(lab, run, "a wrong password")
        deliver(lab, run, password)
        lab.run(["scancel", "--batch", "--signal=USR1", str(job)])
        wait_until(
            lambda: lab.job(job)["Restarts"] == "1",
            60,
            lambda: f"not requeued: {lab.job(job)}\n{lab.output(job)}",
        )
        lab.wait(job, "RUNNING", seconds=60)
        wait_up(lab, job)
        deliver(lab, run, password)
    finally:
        lab.run(["scancel", str(job)])
        lab.wait_idle(len(lab.nodes))
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        assert store.execute("select name, status from runs").fetchall() == [("small", "FINISHED")]
        assert store.execute("select step, key, value from metrics").fetchall() == [(1, "train/loss", 1.0)]
    assert [path.read_bytes() for path in folder.rglob("metrics.jsonl")] == [(run / "metrics.jsonl").read_bytes()]


def test_without_a_folder_it_says_what_to_give(lab: Lab, project: Path) -> None:
    job = lab.sbatch(SCRIPT, cwd=project)
    lab.wait(job, "FAILED")
    assert "mlflow.sh: name the folder" in lab.output(job)
