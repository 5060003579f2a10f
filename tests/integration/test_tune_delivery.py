"""A search and its trials on an MLflow server: one that is there, and one that comes up when the search is over."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from test_tune_cheap import finish, prepare, start

from cluster.tracking.journal import read_metrics
from cluster.world import free_port
from mlflow_servers import stop, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.drill, pytest.mark.timeout(900)]

METRICS = ("val/mpjpe_mm", "train/images_per_s")


@contextmanager
def serving(folder: Path, port: int) -> Iterator[None]:
    """`pose mlflow` on a port."""
    folder.mkdir()
    command, log = [sys.executable, "-m", "pose", "mlflow", str(folder), "--port", str(port)], folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield
    finally:
        stop(process)


def search(folder: Path, shards: Path, port: int) -> str:
    """Three trials, delivered to a server; what the search said."""
    prepare(folder, shards, "{augment.color: [0.0, 0.25, 0.1]}", "{searcher: grid, parallel: 2}", epochs=3)
    words = ["--config", "s.yaml", "--tracking.enabled", "true", "--tracking.experiment", "cheap"]
    return finish(start(folder, *words, "--tracking.uri", f"http://127.0.0.1:{port}"))


def assert_all_there(port: int, folder: Path) -> None:
    """One parent with the page, a child per trial with its status, and each number of the journals once."""
    client = MlflowClient(f"http://127.0.0.1:{port}")
    experiment = client.get_experiment_by_name("cheap")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    statuses = {name: run.info.status for name, run in runs.items()}
    assert statuses == {"cheap": "FINISHED", "t0000": "FINISHED", "t0001": "FAILED", "t0002": "FINISHED"}
    parent = runs.pop("cheap")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert runs["t0001"].data.tags["tune.reason"] == "diverged: val/mpjpe_mm is nan at step 1"
    assert {"search.html", "search.yaml"} <= {item.path for item in client.list_artifacts(parent.info.run_id)}
    for name, run in runs.items():
        entries = read_metrics(folder / "runs" / "cheap" / name)
        for metric in METRICS:
            there = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]
            wanted = [(entry.step, entry.values[metric]) for entry in entries if metric in entry.values]
            assert str(sorted(there)) == str(sorted(wanted)), (name, metric)  # nan is nan
            assert wanted


def test_one_parent_and_a_child_per_trial_on_a_server(shard_sets, tmp_path):
    port = free_port()
    with serving(tmp_path / "store", port):
        said = search(tmp_path, shard_sets["h36m"], port)
        assert "MLflow" not in said
        assert_all_there(port, tmp_path)


def test_what_a_server_missed_it_gets_when_the_search_is_resumed(shard_sets, tmp_path):
    port = free_port()
    said = search(tmp_path, shard_sets["h36m"], port)
    assert f"MLflow at http://127.0.0.1:{port} does not have all of" in said
    assert "nothing is lost: `pose tune --resume cheap` delivers the rest" in said
    with serving(tmp_path / "store", port):
        assert "MLflow" not in finish(start(tmp_path, "--resume", "cheap"))
        assert_all_there(port, tmp_path)
