"""Searches on a real Slurm: one that is asked to stop is requeued and goes on; a lost node loses no trial."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import load
from cluster.settings import Run
from lab import Lab, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.drill, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SEARCH = {
    "name": "tiny",
    "epochs": 24,
    "log_every": 1,
    "validate_every": 8,
    "model": {"backbone": "resnet10", "width": 8, "crop_width": 64, "crop_height": 64, "depth": 4, "ppm_bins": [1, 2]},
    "batch": {"micro": 4},
    "engine": {"ranks": 1, "device": "cpu", "threads": 1},
    "checkpoint": {"every_steps": 5},
    "tracking": {"enabled": False},
    "space": {"optimizer.lr": [1e-3, 2e-3]},
    "search": {"searcher": "grid"},
}
DATA = {"every_train": 1, "every_val": 1, "train_subjects": ["S1"], "val_subjects": ["S1"], "test_subjects": ["S9"]}


def write_search(folder: Path, h36m: Path, parallel: int, **more: int) -> None:
    search = {"searcher": "grid", "parallel": parallel, **more}
    wanted = SEARCH | {"data": DATA | {"h36m": str(h36m)}, "search": search}
    (folder / "search.yaml").write_text(yaml.safe_dump(wanted))


def pose(lab: Lab, folder: Path, *words: str) -> str:
    """A command on the login node, whose `python` stands in for the project's."""
    wide = {"COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    done = lab.run([sys.executable, "-m", "pose", *words], cwd=folder, env=wide, timeout=600)
    return done.stdout + done.stderr


def journal(folder: Path, trial: str) -> list[dict[str, Any]]:
    path = folder / "runs" / "tiny" / trial / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def steps(folder: Path, trial: str) -> list[int]:
    return [line["step"] for line in journal(folder, trial) if "train/loss" in line.get("values", {})]


def states(folder: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in sorted((folder / "runs" / "tiny").glob("t*/trial.json"))]


def test_a_search_that_is_asked_to_stop_is_requeued_and_goes_on(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path
) -> None:
    write_search(tmp_path, shard_sets["h36m"], 1)
    said = pose(lab, tmp_path, "submit", "tune", "--config", "search.yaml", "--job.cpus", "2")
    job = int(re.search(r"submitted tune-tiny as job (\d+)", said)[1])
    wait_until(
        lambda: bool(steps(tmp_path, "t0000")), 300, lambda: pose(lab, tmp_path, "logs", str(job), "--follow=false")
    )
    assert re.search(rf" {job} +tiny +running ", pose(lab, tmp_path, "jobs"))
    lab.run(["scancel", "--batch", "--signal=USR1", str(job)])
    assert lab.wait(job, "COMPLETED", seconds=500)["Restarts"] == "1"
    logs = pose(lab, tmp_path, "logs", str(job))
    assert f"0: job {job} goes back into the queue, as it was asked to stop" in logs
    assert "0: 2 trials; the best is t000" in logs
    assert states(tmp_path) == ["finished", "finished"]
    done = steps(tmp_path, "t0000")
    assert done == list(range(1, len(done) + 1)), "a step was done twice, or lost"


def test_a_search_over_two_nodes_loses_one_and_ends_with_all_trials(
    shard_sets: dict[str, Path], tmp_path: Path
) -> None:
    write_search(tmp_path, shard_sets["h36m"], 2)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    with Lab(nodes=2) as own:
        job = own.sbatch(
            "--nodes=2", "--cpus-per-task=1", ROOT / "slurm" / "tune.sh", "--config", "search.yaml", cwd=tmp_path
        )
        wait_until(
            lambda: all(len(steps(tmp_path, trial)) > 5 for trial in ("t0000", "t0001")), 300, lambda: own.output(job)
        )
        own.kill("n2")
        own.wait(job, "COMPLETED", seconds=600)
        assert "2 trials; the best is t000" in own.output(job)
    assert states(tmp_path) == ["finished", "finished"]
    starts = [sum(line["kind"] == "rewind" for line in journal(tmp_path, trial)) for trial in ("t0000", "t0001")]
    assert sorted(starts) == [1, 2], "one trial went on elsewhere from its checkpoint"


def test_a_trial_spreads_its_ranks_over_two_nodes_and_goes_on_after_a_stop(
    shard_sets: dict[str, Path], tmp_path: Path
) -> None:
    write_search(tmp_path, shard_sets["h36m"], 1, nodes=2)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    words = ["--space", "{optimizer.lr: [1e-3]}", "--epochs", "8"]
    options = ["--nodes=2", "--cpus-per-task=1", ROOT / "slurm" / "tune.sh", "--config", "search.yaml"]
    with Lab(nodes=2) as own:
        job = own.sbatch(*options, *words, cwd=tmp_path)
        wait_until(lambda: bool(steps(tmp_path, "t0000")), 400, lambda: own.output(job))
        for node in own.nodes:
            own.run(["pgrep", "-f", "pose train"], node=node)  # which fails where there is none
        own.run(["scancel", "--batch", "--signal=USR1", str(job)])
        assert own.wait(job, "COMPLETED", seconds=600)["Restarts"] == "1"
        assert "the best is t0000" in own.output(job)
    assert states(tmp_path) == ["finished"]
    done = steps(tmp_path, "t0000")
    assert done == list(range(1, len(done) + 1)), "a step was done twice, or lost"
    run = load(Run, tmp_path / "runs" / "tiny" / "t0000" / "run.yaml")
    assert run.batch.global_ == 2 * run.batch.micro, "two ranks"
