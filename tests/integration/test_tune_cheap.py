"""Whole searches with a stand-in for `pose train`: real Ray, processes and journals, a free objective."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.config import load
from cluster.settings import Run
from tune.records import TrialRecord, read_trials

pytestmark = [pytest.mark.integration, pytest.mark.drill, pytest.mark.timeout(900)]

STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
from cluster.config import load
from cluster.run_folder import claim, held
from cluster.settings import Run
from cluster.tracking.journal import Journal

asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
run = load(Run, Path(sys.argv[sys.argv.index("--config") + 1]))
with held(run.folder), Journal(run.folder) as journal:
    claim(run, 4)
    state = {"epoch": 0, "error": 100.0, "line": [], "rates": []}
    for path in sorted(run.folder.glob("checkpoints/step-*/complete.json")):
        state = json.loads(path.read_text())
    state["line"].append(run.name)
    journal.rewind(state["epoch"])
    journal.status("running")
    while len(list(run.runs_dir.glob("t*/metrics.jsonl"))) < int(os.environ.get("TOGETHER", 1)):
        time.sleep(0.1)
    while state["epoch"] < run.epochs and not asked:
        time.sleep(0.4)
        if run.augment.color == 0.5:
            bytearray(1 << 60)
        state["epoch"] += 1
        state["rates"].append(run.optimizer.lr)
        state["error"] = float("nan") if run.augment.color == 0.25 else state["error"] * (1 - run.optimizer.lr)
        journal.metrics(state["epoch"], {"train/epoch": state["epoch"], "train/images_per_s": 9.0})
        journal.metrics(state["epoch"], {"val/mpjpe_mm": state["error"]})
        folder = run.folder / "checkpoints" / f"step-{state['epoch']:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "complete.part").write_text(json.dumps(state))
        (folder / "complete.part").rename(folder / "complete.json")
    journal.status("stopped" if state["epoch"] < run.epochs else "finished")
"""
DRIVER = "import sys; sys.path = [p for p in sys.path if p]; import pose; sys.exit(pose.main(sys.argv[1:]))"
EPOCHS = 9


def prepare(folder: Path, shards: Path, space: str, settings: str, epochs: int = EPOCHS) -> None:
    """A search's YAML, in a folder whose `pose.py` is the stand-in."""
    (folder / "pose.py").write_text(STAND_IN)
    (folder / "s.yaml").write_text(
        f"name: cheap\nepochs: {epochs}\ntracking: {{enabled: false}}\n"
        "engine: {ranks: 1, device: cpu}\nbatch: {micro: 4}\n"
        "model: {backbone: resnet10, width: 8, crop_width: 64, crop_height: 64, depth: 8, ppm_bins: [1]}\n"
        f"data: {{h36m: {shards}, every_train: 1, every_val: 1, every_test: 1, train_subjects: [S1],"
        f" val_subjects: [S1], test_subjects: [S9]}}\nspace: {space}\nsearch: {settings}\n"
    )


def start(folder: Path, *words: str, together: int = 1) -> subprocess.Popen[str]:
    """`pose tune` there; no training goes on before so many have begun."""
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, "tune", *words],
        cwd=folder,
        env=os.environ | {"TOGETHER": str(together)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(driver: subprocess.Popen[str]) -> str:
    """Wait for a search; what it said."""
    said, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, said
    return said


def search(folder: Path, shards: Path, space: str, settings: str) -> tuple[list[TrialRecord], str]:
    """A whole search; its trials, and what it said."""
    prepare(folder, shards, space, settings)
    said = finish(start(folder, "--config", "s.yaml"))
    return read_trials(folder / "runs" / "cheap"), said


def states(runs: Path) -> dict[str, dict]:
    """The newest state of every trial; without those that are just being replaced by another trial's."""
    newest = {path.parents[2].name: path for path in sorted(runs.glob("cheap/t*/checkpoints/step-*/complete.json"))}
    found = {}
    for name, path in newest.items():
        with suppress(FileNotFoundError):
            found[name] = json.loads(path.read_text())
    return found


def wait_for(driver: subprocess.Popen[str], event: Callable[[], bool]) -> None:
    """Wait for an event while a search goes on."""
    deadline = time.monotonic() + 300
    while not event():
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_asha_spends_little_and_loses_nothing(shard_sets, tmp_path):
    records, said = search(
        tmp_path,
        shard_sets["h36m"],
        "{optimizer.lr: {from: 1e-3, to: 0.3, log: true}}",
        "{searcher: random, scheduler: asha, trials: 8, parallel: 2, seed: 1}",
    )
    assert len(records) == 8
    assert {record.status for record in records} == {"finished", "stopped early"}
    assert sum(record.epochs for record in records) <= 0.6 * EPOCHS * len(records)
    to_the_end = [100 * (1 - record.values["optimizer.lr"]) ** EPOCHS for record in records]
    assert min(record.scores["val/mpjpe_mm"] for record in records) <= min(to_the_end) + 1e-6
    assert "search.html" in said.replace("\n", "")
    assert (tmp_path / "runs" / "cheap" / "search.html").is_file()


def test_trials_without_memory_or_numbers_fail_and_the_search_goes_on(shard_sets, tmp_path):
    records, said = search(
        tmp_path, shard_sets["h36m"], "{augment.color: [0.0, 0.25, 0.5, 0.1]}", "{searcher: grid, parallel: 2}"
    )
    assert [record.status for record in records] == ["finished", "failed", "failed", "finished"]
    assert records[1].reason == "diverged: val/mpjpe_mm is nan at step 1"
    assert records[2].reason == "out of memory: MemoryError"
    assert "4 trials, 2 of them failed; the best is t0000" in said


def test_a_population_goes_on_from_its_best_and_survives_its_driver(shard_sets, tmp_path):
    prepare(
        tmp_path,
        shard_sets["h36m"],
        "{optimizer.lr: {from: 1e-3, to: 0.1, log: true}}",
        "{searcher: random, scheduler: pbt, perturb_epochs: 4, trials: 4, cpus: 0.5, seed: 3}",
        epochs=60,
    )
    runs = tmp_path / "runs"

    def inherited() -> bool:
        return any(set(state["line"]) != {name} for name, state in states(runs).items())

    driver = start(tmp_path, "--config", "s.yaml", together=4)
    wait_for(driver, inherited)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    before = states(runs)
    said = finish(start(tmp_path, "--resume", "cheap"))
    records, after = read_trials(runs / "cheap"), states(runs)
    assert [record.status for record in records] == ["finished"] * 4, said
    assert inherited()
    for record in records:
        state = after[record.name]
        rate = load(Run, runs / "cheap" / record.name / "run.yaml").optimizer.lr
        assert rate == record.values["optimizer.lr"] == state["rates"][-1]
        assert state["epoch"] == len(state["rates"]) == 60 == record.epochs
        assert state["error"] == pytest.approx(100 * math.prod(1 - one for one in state["rates"]))
    mixed = [name for name, state in after.items() if len(set(state["rates"])) > 1]
    assert mixed, "a rate was changed on the way"
    kept = [name for name, state in before.items() if after[name]["rates"][: state["epoch"]] == state["rates"]]
    assert kept, "the best went on with what they had"
    best = min(records, key=lambda record: record.scores["val/mpjpe_mm"])
    assert best.scores["val/mpjpe_mm"] == pytest.approx(min(state["error"] for state in after.values()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_has_the_trials_save_and_more_trials_may_follow(number, shard_sets, tmp_path):
    prepare(
        tmp_path,
        shard_sets["h36m"],
        "{optimizer.lr: [0.1, 0.2, 0.3]}",
        "{searcher: grid, trials: 1, parallel: 1}",
        epochs=40,
    )
    driver, runs = start(tmp_path, "--config", "s.yaml"), tmp_path / "runs"
    wait_for(driver, lambda: bool(states(runs)))
    driver.send_signal(number)
    said = finish(driver)
    assert "1 of 3 combinations" in said
    assert f"stopped by {number.name}; go on with: pose tune --resume cheap" in said
    (stopped,) = read_trials(runs / "cheap")
    assert stopped.status == "waiting"
    assert '"stopped"' in (runs / "cheap" / "t0000" / "metrics.jsonl").read_text().splitlines()[-1]
    before = states(runs)["t0000"]
    finish(start(tmp_path, "--resume", "cheap", "--search.trials", "2"))
    records = read_trials(runs / "cheap")
    assert [record.status for record in records] == ["finished", "finished"]
    assert states(runs)["t0000"]["rates"][: before["epoch"]] == before["rates"]
    assert states(runs)["t0000"]["line"] == ["t0000", "t0000"]


def test_hours_are_of_all_starts_together(shard_sets, tmp_path):
    prepare(
        tmp_path,
        shard_sets["h36m"],
        "{optimizer.lr: [0.1, 0.2]}",
        "{searcher: grid, parallel: 1, hours: 0.003}",
        epochs=100,
    )
    said = finish(start(tmp_path, "--config", "s.yaml"))
    assert "stopped by search.hours = 0.003; go on with: pose tune --resume cheap --search.hours MORE" in said
    before = states(tmp_path / "runs")
    assert "stopped by search.hours" in finish(start(tmp_path, "--resume", "cheap"))
    assert states(tmp_path / "runs") == before
