"""`pose tune` as users run it: a real Ray, real trainings, killed, resumed, failed, delivered."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.config import load
from cluster.settings import Run
from tune.configuration import trial_run
from tune.settings import TuneSettings
from tune.training import Training, launch_here

pytestmark = [pytest.mark.integration, pytest.mark.drill, pytest.mark.timeout(900)]

SEARCH = """
name: tiny
epochs: 2
log_every: 1
data: {{h36m: {h36m}, every_train: 1, every_val: 1, every_test: 1,
  train_subjects: [S1], val_subjects: [S1], test_subjects: [S9]}}
model: {{backbone: resnet10, width: 8, crop_width: 64, crop_height: 64, depth: 8, ppm_bins: [1, 2], ppm_channels: 16,
  decoder_channels: 16, decoder_layers: 1}}
batch: {{micro: 8}}
engine: {{ranks: 1, device: cpu, timeout_s: 60}}
space:
  optimizer.lr: [1e-3, 1e30, 2e-3]
search: {{searcher: grid, parallel: 1}}
"""


@pytest.fixture(scope="module")
def config(shard_sets, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tune") / "tiny.yaml"
    path.write_text(SEARCH.format(**shard_sets))
    return path


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "pose", "tune", *map(str, words)]


def tune(*words: str | Path, expect: int = 0) -> str:
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=800)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def trials(search: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(search.glob("t*/trial.json"))]


def mlflow_rows(store: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def searched(config, tmp_path_factory) -> tuple[Path, str, str]:
    """A search whose driver was killed during its first trial, and resumed: its folder, journal of then, and output."""
    runs = tmp_path_factory.mktemp("runs")
    folder = runs / "tiny"
    driver = subprocess.Popen(command("--config", config, "--runs_dir", runs), start_new_session=True)
    first = folder / "t0000" / "metrics.jsonl"
    while not (first.is_file() and "val/mpjpe_mm" in first.read_text()):
        time.sleep(0.1)
        assert driver.poll() is None
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    key = json.loads((folder / "t0000" / "trial.json").read_text())["key"]
    return folder, key, tune("--resume", "tiny", "--runs_dir", runs)


def test_a_killed_search_goes_on_with_the_trials_it_had(searched):
    folder, key, shown = searched
    found = trials(folder)
    assert [(one["status"], one["values"]["optimizer.lr"]) for one in found] == [
        ("finished", 1e-3),
        ("failed", 1e30),
        ("finished", 2e-3),
    ]
    assert found[0]["key"] == key
    assert found[1]["reason"].startswith("diverged: the loss of step")
    assert "3 trials, 1 of them failed; the best is t000" in shown
    assert f"next: pose tune best tiny --runs_dir {folder.parent}" in shown


def test_mlflow_shows_one_parent_and_a_child_per_trial(searched):
    folder, _, _ = searched
    store = folder.parent / "mlflow.db"
    assert sorted(mlflow_rows(store, "select name, status from runs")) == [
        ("t0000", "FINISHED"),
        ("t0001", "FAILED"),
        ("t0002", "FINISHED"),
        ("tiny", "FINISHED"),
    ]
    parent = mlflow_rows(store, "select run_uuid from runs where name = 'tiny'")
    assert mlflow_rows(store, "select distinct value from tags where key = 'mlflow.parentRunId'") == parent
    rows = mlflow_rows(
        store,
        "select name, m.step, count(*) from metrics m join runs r using (run_uuid)"
        " where m.key = 'val/mpjpe_mm' group by name, m.step order by name, m.step",
    )
    assert rows == [(name, step, 1) for name in ("t0000", "t0002") for step in (4, 8)]
    rates = mlflow_rows(
        store,
        "select r.name, p.value from params p join runs r using (run_uuid) where p.key = 'optimizer.lr' order by 1",
    )
    assert [(name, float(value)) for name, value in rates] == [("t0000", 1e-3), ("t0001", 1e30), ("t0002", 2e-3)]


def test_the_best_trial_is_a_ready_yaml(searched, tmp_path):
    folder, _, _ = searched
    done = subprocess.run(
        command("best", "tiny", "--runs_dir", folder.parent), capture_output=True, text=True, timeout=120, check=True
    )
    (tmp_path / "best.yaml").write_text(done.stdout)
    run = load(Run, tmp_path / "best.yaml")
    scores = {one["values"]["optimizer.lr"]: one["scores"].get("val/mpjpe_mm", 1e9) for one in trials(folder)}
    assert run.optimizer.lr == min(scores, key=scores.__getitem__)
    assert (run.name, run.runs_dir, run.tracking.enabled) == ("tiny-best", folder.parent, True)


def test_a_search_is_never_mixed_with_another(searched, config):
    folder, _, _ = searched
    before = [path.read_bytes() for path in sorted(folder.glob("t*/trial.json"))]
    shown = tune("--config", config, "--runs_dir", folder.parent, "--epochs", "3", expect=1)
    go_on = f"`pose tune --resume tiny --runs_dir {folder.parent}`"
    assert f"{folder} holds a search already; go on with it by {go_on}" in shown
    shown = tune("--resume", "tiny", "--runs_dir", folder.parent, "--epochs", "3", expect=1)
    assert "--resume takes the settings that tiny was started with, not epochs" in shown
    assert [path.read_bytes() for path in sorted(folder.glob("t*/trial.json"))] == before


def test_a_finished_search_runs_nothing_again(searched):
    folder, _, _ = searched
    before = {path: path.read_bytes() for path in folder.glob("t*/metrics.jsonl")}
    assert "the best is t000" in tune("--resume", "tiny", "--runs_dir", folder.parent)
    assert {path: path.read_bytes() for path in folder.glob("t*/metrics.jsonl")} == before


def test_a_trial_goes_on_from_anothers_weights_with_a_rate_of_its_own(searched, tmp_path):
    folder, _, _ = searched
    settings = replace(load(TuneSettings, folder / "search.yaml"), epochs=3, name="taken", runs_dir=tmp_path)
    mine = tmp_path / "taken" / "t0000"
    shutil.copytree(folder / "t0000", mine)
    training = Training(trial_run(settings, {"optimizer.lr": 5e-4}, "t0000"), ("val/mpjpe_mm",), tmp_path, launch_here)
    training.take_over(folder / "t0002", 8)
    report = training.next()
    assert (report.step, report.epochs, report.last) == (12, 3, True)
    assert f"{mine}: resuming after step 8 of 12 steps" in (mine / "train.log").read_text()
    assert load(Run, mine / "run.yaml").optimizer.lr == 5e-4
