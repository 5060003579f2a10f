"""A job is asked to stop, loses a rank, is preempted: it goes on in the same run, and nothing is done twice or lost."""

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import drill
from drill import EVERY, STEPS, Training
from lab import Lab, LabError, wait_until

pytestmark = pytest.mark.slurm

NOBODY = "http://127.0.0.1:9"
"""A tracking server that nobody has started."""


def check(training: Training, undisturbed: dict[int, float], restarts: int = 1) -> None:
    """It came to the end after so many restarts, repeating only what no checkpoint held, with the same losses."""
    assert training.wait_end()["Restarts"] == str(restarts)
    assert training.losses() == undisturbed
    assert len(training.restored()) == restarts
    assert [line["value"] for line in training.records() if line["kind"] == "status"][-1] == "finished"


def test_usr1_saves_requeues_once_and_goes_on_in_the_same_mlflow_run(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path, undisturbed: dict[int, float]
) -> None:
    training = drill.start(lab, tmp_path / "job", shard_sets, "--tracking.enabled=true")
    training.wait_step(random.randint(2, 16))
    lab.run(["scancel", "--signal=USR1", str(training.job)])
    lab.run(["scancel", "--signal=USR1", str(training.job)])
    check(training, undisturbed)
    assert training.steps() == list(range(1, STEPS + 1)), "a step was done twice"
    assert "as it was asked to stop; it will go on after step" in training.output()
    with sqlite3.connect(training.run.parent / "mlflow.db") as store:
        [(runs, status)] = store.execute("select count(*), status from runs").fetchall()
        steps = [step for (step,) in store.execute("select step from metrics where key = 'train/loss' order by step")]
    assert (runs, status, steps) == (1, "FINISHED", list(range(1, STEPS + 1)))


def test_a_killed_rank_costs_the_steps_since_the_last_checkpoint(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path, undisturbed: dict[int, float]
) -> None:
    training = drill.start(lab, tmp_path / "job", shard_sets)
    training.wait_step(random.randint(EVERY + 1, 16))
    os.kill(drill.rank_pids(lab, "n2")[0], signal.SIGKILL)
    check(training, undisturbed)
    [restored] = training.restored()
    assert restored % EVERY == 0
    assert len(training.steps()) - STEPS <= EVERY


def preempt(training: Training, folder: Path) -> None:
    urgent = training.lab.sbatch("--partition=urgent", "--nodes=4", "--exclusive", "--wrap", "sleep 1", cwd=folder)
    training.lab.wait(urgent, "COMPLETED", seconds=120)


def test_an_urgent_job_gets_the_nodes_and_gives_them_back(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path, undisturbed: dict[int, float]
) -> None:
    training = drill.start(lab, tmp_path / "job", shard_sets)
    lab.run(["scontrol", "update", "PartitionName=batch", "GraceTime=60"])
    training.wait_step(random.randint(2, 16))
    preempt(training, tmp_path)
    lab.run(["scontrol", "update", "PartitionName=batch", "GraceTime=0"])
    check(training, undisturbed)
    assert training.steps() == list(range(1, STEPS + 1)), "a step was done twice"


@pytest.mark.drill
def test_an_urgent_job_takes_the_nodes_without_a_warning(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path, undisturbed: dict[int, float]
) -> None:
    training = drill.start(lab, tmp_path / "job", shard_sets)
    training.wait_step(EVERY + 1)
    preempt(training, tmp_path)
    check(training, undisturbed)


def test_a_cancelled_job_is_not_requeued(lab: Lab, shard_sets: dict[str, Path], tmp_path: Path) -> None:
    training = drill.start(lab, tmp_path / "job", shard_sets, "--epochs=2000")
    training.wait_step(2)
    lab.run(["scancel", str(training.job)])
    assert lab.wait(training.job, "CANCELLED")["Restarts"] == "0"
    lab.wait_idle(4)
    assert "goes back into the queue" not in training.output()
    assert lab.job(training.job)["JobState"] == "CANCELLED"


@pytest.mark.drill
def test_a_tracking_server_that_is_down_costs_nothing(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path, undisturbed: dict[int, float]
) -> None:
    training = drill.start(lab, tmp_path / "job", shard_sets, "--tracking.enabled=true", "--tracking.uri", NOBODY)
    assert training.wait_end()["Restarts"] == "0"
    assert training.losses() == undisturbed
    assert f"are not in MLflow at {NOBODY} yet" in training.output()
    delivery = [sys.executable, "-m", "cluster.tracking.delivery", training.run, "--once"]
    subprocess.run(delivery, check=True, timeout=120)
    with sqlite3.connect(training.run.parent / "mlflow.db") as store:
        assert list(store.execute("select status from runs")) == [("FINISHED",)]
        steps = [step for (step,) in store.execute("select step from metrics where key = 'train/loss' order by step")]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.drill
def test_a_loss_that_is_not_finite_ends_the_job_with_one_line(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path
) -> None:
    words = ("--optimizer.lr=1e30", "--tracking.enabled=true", "--tracking.uri", NOBODY)
    training = drill.start(lab, tmp_path / "job", shard_sets, *words)
    with pytest.raises(LabError, match=r"ended as FAILED"):
        training.wait_end()
    assert lab.job(training.job)["Restarts"] == "0"
    said = training.output()
    assert len(re.findall("pose train: the loss of step .* is (?:nan|inf); lower optimizer.lr or set", said)) == 1
    assert "Traceback" not in said


@pytest.mark.drill
def test_what_would_happen_again_ends_the_job(lab: Lab, shard_sets: dict[str, Path], tmp_path: Path) -> None:
    training = drill.start(lab, tmp_path / "job", shard_sets, "--data.train_subjects=[S11]", nodes=1)
    with pytest.raises(LabError, match=r"ended as FAILED"):
        training.wait_end()
    assert lab.job(training.job)["Restarts"] == "0"
    assert "S11" in training.output()


@pytest.mark.drill
def test_starts_without_progress_are_counted_and_end_the_job(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path
) -> None:
    words = ("--restart.limit=2", "--checkpoint.every_steps=0", "--epochs=2000")
    training = drill.start(lab, tmp_path / "job", shard_sets, *words, nodes=1)
    for restart in range(2):
        wait_until(lambda n=restart: len(_starts(training)) > n, 120, training.output)
        before = len(training.steps())
        wait_until(lambda n=before: len(training.steps()) > n, 60, training.output)
        os.kill(drill.rank_pids(lab, lab.job(training.job)["NodeList"])[0], signal.SIGKILL)
        wait_until(lambda: lab.job(training.job)["JobState"] != "RUNNING", 60, training.output)
    job = lab.wait(training.job, "FAILED")
    assert job["Restarts"] == "1"
    said = training.output()
    assert "2 starts in a row have made no checkpoint after step 0; the last ended with exit code 137." in said


def _starts(training: Training) -> list[str]:
    return [line for line in training.records() if line.get("value") == "running"]
