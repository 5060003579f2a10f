"""`pose submit train` and `pose submit eval` without Slurm: ranks as processes, their logs, the list of jobs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

SMALL = """
name: small
epochs: 2
log_every: 1
data: {{h36m: {h36m}, mpii: {mpii}, every_train: 1, every_val: 1, every_test: 1,
  train_subjects: [S1], val_subjects: [S1], test_subjects: [S9]}}
model: {{backbone: resnet18, width: 8, crop_width: 64, crop_height: 64, depth: 4, ppm_bins: [1, 2], ppm_channels: 16,
  decoder_channels: 16, decoder_layers: 1}}
batch: {{micro: 4}}
engine: {{device: cpu, threads: 1, timeout_s: 60}}
tracking: {{enabled: false}}
"""


def pose(folder: Path, *words: str, expect: int = 0) -> str:
    command, wide = [sys.executable, "-m", "pose", *words], os.environ | {"COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=wide, capture_output=True, text=True, timeout=280)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(shard_sets, tmp_path_factory) -> tuple[Path, str]:
    """A folder in which a run of two local ranks was submitted and trained, and what was said."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "small.yaml").write_text(SMALL.format(**shard_sets))
    words = ("--job.ranks", "2", "--job.executor", "local")
    return folder, pose(folder, "submit", "train", "--config", "small.yaml", *words)


def test_a_run_of_two_local_ranks_and_its_logs(trained):
    folder, shown = trained
    assert "world            2 = 1 node x 2 ranks" in shown
    steps = int(re.search(r"^steps +(\d+) in 2 epochs", shown, re.MULTILINE)[1])
    assert "trained: runs/small; next: pose submit eval runs/small" in shown
    lines = [json.loads(line) for line in (folder / "runs/small/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line.get("values", {})] == list(range(1, steps + 1))

    [row] = [line for line in pose(folder, "jobs").splitlines() if " small " in line]
    job, name, state, step, _speed = row.split()
    assert (name, state, step) == ("small", "finished", str(steps))
    logs = pose(folder, "logs", job)
    assert re.search(r"^0: runs/small: training for \d+ steps of 8 on .* 2 ranks on cpu", logs, re.MULTILINE)
    assert re.search(r"^1: ", logs, re.MULTILINE)


def test_its_score_as_a_job(trained):
    folder, _ = trained
    assert "scored: runs/small" in pose(folder, "submit", "eval", "runs/small", "--job.executor", "local")
    assert (folder / "runs/small/score.html").is_file()
    assert "MPJPE" in pose(folder, "logs", "eval-small", "--follow", "false")
