"""`pose submit tune`: the batch script of a search, and what is refused before anything is submitted."""

import subprocess
from pathlib import Path

import pytest
import yaml

import pose

pytestmark = pytest.mark.unit

SETTINGS = {
    "name": "tiny",
    "epochs": 1,
    "model": {"backbone": "resnet10", "width": 8, "crop_width": 64, "crop_height": 64, "depth": 8, "ppm_bins": [1, 2]},
    "batch": {"micro": 8},
    "space": {"model.depth": [4, 8]},
    "search": {"trials": 2, "searcher": "grid"},
}
DATA = {"every_train": 1, "every_val": 1, "train_subjects": ["S1"], "val_subjects": ["S1"], "test_subjects": ["S9"]}


@pytest.fixture
def config(shard_sets, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | {"data": DATA | {"h36m": str(shard_sets["h36m"])}}, sort_keys=False))
    return path


def test_a_dry_run_prints_the_whole_script_and_leaves_nothing_behind(config, capsys):
    words = ["--job.nodes", "2", "--job.gpus", "4", "--job.cpus", "3", "--job.partition", "gpu", "--job.minutes", "90"]
    assert pose.main(["submit", "tune", "--config", str(config), "--dry_run", "true", *words]) == 0
    shown = capsys.readouterr().out
    assert "tiny: up to 2 trials on 2 nodes; 2 configurations checked" in shown
    script = shown[shown.index("#!/usr/bin/env bash") :]
    lines = script.splitlines()
    for option in (
        "nodes=2", "ntasks-per-node=1", "cpus-per-task=12", "gpus-per-node=4", "partition=gpu", "time=90", "requeue",
        "signal=B:USR1@300", "job-name=tune-tiny", "open-mode=append",
    ):  # fmt: skip
        assert f"#SBATCH --{option}" in lines
    assert len([line for line in lines if line.startswith("#SBATCH --signal")]) == 1
    assert f"export POSE_SEARCH={config.parent / 'runs' / 'tiny'}" in lines
    assert lines.index("set -euo pipefail") > max(n for n, line in enumerate(lines) if line.startswith("export POSE_"))
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert [path.name for path in Path().iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize(
    ("words", "line", "code"),
    [
        (["--search.nodes", "2"], "search.nodes must be at most job.nodes = 1, not 2", 2),
        (["--job.executor", "local"], "job.executor must be slurm", 2),
        (["--job.ranks", "2"], "job.ranks must be 0", 2),
        (["--space", "{model.dept: [8]}"], "unknown key 'model.dept'", 2),
        (["--data.h36m", "gone"], "gone", 1),
        (["--site", "nowhere"], "no such site profile", 1),
        (["--resume", "gone"], "gone is no search", 1),
    ],
)
def test_what_could_not_run_is_refused_in_one_line(config, capsys, words, line, code):
    start = [] if "--resume" in words else ["--config", str(config)]
    assert pose.main(["submit", "tune", *start, "--dry_run", "true", *words]) == code
    said = capsys.readouterr().err
    assert line in said
    assert len(said.strip().splitlines()) == 1


def test_without_slurm_it_is_one_clear_line(config, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert pose.main(["submit", "tune", "--config", str(config)]) == 1
    assert "there is no sbatch on this machine" in capsys.readouterr().err
