"""Whole searches with a stand-in for `pose train`: real Ray, processes and journals, a free objective."""

import subprocess
import sys
from pathlib import Path

import pytest

from tune.records import TrialRecord, read_trials

pytestmark = [pytest.mark.integration, pytest.mark.drill, pytest.mark.timeout(900)]

STAND_IN = """
import json, sys, time
from pathlib import Path
from cluster.config import load
from cluster.settings import Run
from cluster.tracking.journal import Journal

run = load(Run, Path(sys.argv[sys.argv.index("--config") + 1]))
state = {"epoch": 0, "error": 100.0, "line": []}
for path in sorted(run.folder.glob("checkpoints/step-*/complete.json")):
    state = json.loads(path.read_text())
state["line"].append(run.name)
with Journal(run.folder) as journal:
    journal.rewind(state["epoch"])
    journal.status("running")
    while state["epoch"] < run.epochs:
        time.sleep(0.4)
        if run.augment.color == 0.5:
            bytearray(1 << 60)
        state["epoch"] += 1
        state["error"] = float("nan") if run.augment.color == 0.25 else state["error"] * (1 - run.optimizer.lr)
        folder = run.folder / "checkpoints" / f"step-{state['epoch']:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "complete.json").write_text(json.dumps(state))
        journal.metrics(state["epoch"], {"val/mpjpe_mm": state["error"], "train/images_per_s": 9.0})
    journal.status("finished")
"""
DRIVER = "import sys; sys.path = [p for p in sys.path if p]; import pose; sys.exit(pose.main(sys.argv[1:]))"
EPOCHS = 9


def search(folder: Path, shards: Path, space: str, settings: str) -> tuple[list[TrialRecord], str]:
    """A search in a folder whose `pose.py` is the stand-in; its trials, and what it said."""
    (folder / "pose.py").write_text(STAND_IN)
    (folder / "s.yaml").write_text(
        f"name: cheap\nepochs: {EPOCHS}\ntracking: {{enabled: false}}\n"
        "engine: {ranks: 1, device: cpu}\nbatch: {micro: 4}\n"
        "model: {backbone: resnet10, width: 8, crop_width: 64, crop_height: 64, depth: 8, ppm_bins: [1]}\n"
        f"data: {{h36m: {shards}, every_train: 1, every_val: 1, every_test: 1, train_subjects: [S1],"
        f" val_subjects: [S1], test_subjects: [S9]}}\nspace: {space}\nsearch: {settings}\n"
    )
    command = [sys.executable, "-c", DRIVER, "tune", "--config", "s.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    return read_trials(folder / "runs" / "cheap"), done.stdout


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
