"""`pose submit tune` on a real Slurm: asked to stop, the search is requeued, goes on, and loses no trial."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from lab import Lab, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.drill, pytest.mark.timeout(900)]

SEARCH = {
    "name": "tiny",
    "epochs": 24,
    "log_every": 1,
    "validate_every": 8,
    "model": {"backbone": "resnet10", "width": 8, "crop_width": 64, "crop_height": 64, "depth": 4, "ppm_bins": [1, 2]},
    "batch": {"micro": 4},
    "engine": {"ranks": 1, "device": "cpu", "threads": 1},
    "tracking": {"enabled": False},
    "space": {"optimizer.lr": [1e-3, 2e-3]},
    "search": {"searcher": "grid", "parallel": 1},
}
DATA = {"every_train": 1, "every_val": 1, "train_subjects": ["S1"], "val_subjects": ["S1"], "test_subjects": ["S9"]}


def pose(lab: Lab, folder: Path, *words: str) -> str:
    wide = {"COLUMNS": "200", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = lab.run([sys.executable, "-m", "pose", *words], cwd=folder, env=wide, timeout=600)
    return done.stdout + done.stderr


def test_a_search_that_is_asked_to_stop_is_requeued_and_goes_on(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path
) -> None:
    config = SEARCH | {"data": DATA | {"h36m": str(shard_sets["h36m"])}}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(config))
    said = pose(lab, tmp_path, "submit", "tune", "--config", "search.yaml", "--job.cpus", "2")
    job = int(re.search(r"submitted tune-tiny as job (\d+)", said)[1])
    journal = tmp_path / "runs" / "tiny" / "t0000" / "metrics.jsonl"
    wait_until(
        lambda: journal.is_file() and "train/loss" in journal.read_text(),
        300,
        lambda: pose(lab, tmp_path, "logs", str(job), "--follow=false"),
    )
    assert re.search(rf" {job} +tiny +running ", pose(lab, tmp_path, "jobs"))
    lab.run(["scancel", "--batch", "--signal=USR1", str(job)])
    assert lab.wait(job, "COMPLETED", seconds=500)["Restarts"] == "1"
    logs = pose(lab, tmp_path, "logs", str(job))
    assert f"0: job {job} goes back into the queue, as it was asked to stop" in logs
    assert "0: 2 trials; the best is t000" in logs
    trials = [json.loads((tmp_path / "runs" / "tiny" / name / "trial.json").read_text()) for name in ("t0000", "t0001")]
    assert [trial["status"] for trial in trials] == ["finished", "finished"]
    steps = [
        line for line in map(json.loads, journal.read_text().splitlines()) if "train/loss" in line.get("values", {})
    ]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1)), "a step was done twice, or lost"
