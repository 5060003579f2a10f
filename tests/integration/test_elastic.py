"""A run goes on at another number of ranks and another ZeRO stage as if it had always been there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.world import World, free_port

pytestmark = pytest.mark.integration

RANK = Path(__file__).with_name("elastic_ranks.py")
STAGES = (0, 1, 2)
Told = dict[tuple[str, int], dict]

SMALL = """
name: small
epochs: 6
validate_every: 30
log_every: 1
data: {{h36m: {h36m}, mpii: {mpii}, every_train: 1, every_val: 1, every_test: 1,
  train_subjects: [S1], val_subjects: [S1], test_subjects: [S9]}}
model: {{backbone: resnet18, width: 8, crop_width: 64, crop_height: 64, depth: 4, ppm_bins: [1, 2], ppm_channels: 16,
  decoder_channels: 16, decoder_layers: 1}}
batch: {{micro: 4}}
optimizer: {{lr: 1e-4}}
checkpoint: {{every_steps: 6, asynchronous: true}}
engine: {{device: cpu, timeout_s: 60, threads: 1}}
tracking: {{enabled: false}}
"""


def ranks(size: int, folder: Path, *words: str) -> list[subprocess.Popen[str]]:
    """So many real ranks, which tell what becomes of each word at each stage."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, str(RANK), str(folder), *words],
            env=os.environ | World(rank, size, rank, size, port=port).variables() | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Told]:
    """All that one and two ranks have done, side by side; each waits for what it needs from the other."""
    folder = tmp_path_factory.mktemp("elastic")
    started = {
        2: ranks(2, folder, "whole", "halt:two", "from:two", "from:one", "from:one+1", "from:one+2"),
        1: ranks(1, folder, "whole", "halt:one", "from:two", "from:two+1", "from:two+2"),
    }
    found: dict[int, Told] = {}
    try:
        for size, children in started.items():
            shown = [child.communicate(timeout=270)[0] for child in children]
            assert [child.returncode for child in children] == [0] * size, "\n".join(shown)
            lines = [json.loads(line) for line in shown[0].splitlines() if line.startswith("{")]
            found[size] = {(line["word"], line["stage"]): line for line in lines}
    finally:
        for child in (child for children in started.values() for child in children):
            child.kill()
            child.communicate()
    return found


def test_a_run_learns(told: dict[int, Told]) -> None:
    losses = told[1]["whole", 0]["losses"]
    assert len(losses) == 8
    assert len(set(losses)) == 8


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_trains_the_same(told: dict[int, Told], stage: int) -> None:
    for size in (1, 2):
        assert told[size]["whole", stage]["losses"] == pytest.approx(told[1]["whole", 0]["losses"], rel=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_in_the_same_world_nothing_has_happened(told: dict[int, Told], stage: int) -> None:
    whole, resumed = told[2]["whole", stage], told[2]["from:two", stage]
    assert resumed["losses"] == whole["losses"][4:]
    assert resumed["weights"] == whole["weights"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("size", "source"), [(1, "two"), (2, "one")])
@pytest.mark.parametrize("shift", ["", "+1", "+2"], ids=["same-stage", "next-stage", "next-but-one"])
def test_in_another_world(told: dict[int, Told], size: int, source: str, shift: str, stage: int) -> None:
    # Two ranks add the micro-batches' gradients in another order than one.
    whole, resumed = told[size]["whole", stage], told[size][f"from:{source}{shift}", stage]
    assert resumed["losses"] == pytest.approx(whole["losses"][4:], rel=1e-4)
    assert resumed["weights"] == pytest.approx(whole["weights"], rel=1e-3, abs=1e-3)


@pytest.fixture
def config(shard_sets: dict[str, Path], tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL.format(**shard_sets))
    return path


def train(config: Path, runs: Path, size: int, epochs: int, *words: str, expect: int = 0) -> str:
    command = [sys.executable, "-m", "pose", "train", "--config", str(config), "--runs_dir", str(runs)]
    words = (*words, f"--engine.ranks={size}", f"--epochs={epochs}")
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=280)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def losses(runs: Path) -> list[float]:
    from cluster.tracking.journal import curve, read_metrics

    steps, values = curve(read_metrics(runs / "small"), "train/loss")
    assert list(steps) == list(range(1, len(steps) + 1))
    return list(values)


@pytest.mark.timeout(600)  # five starts in a row
@pytest.mark.drill
def test_pose_train_on_two_ranks_one_rank_two_ranks(config: Path, tmp_path: Path) -> None:
    train(config, tmp_path / "whole", 2, 6)
    train(config, tmp_path / "moved", 2, 2, "--engine.zero_stage=2")
    shown = train(config, tmp_path / "moved", 1, 4, "--engine.zero_stage=1")
    assert "resuming after step 11 of 22 steps of 8" in shown
    train(config, tmp_path / "moved", 2, 6, "--engine.zero_stage=0")
    assert len(losses(tmp_path / "whole")) == 33
    assert losses(tmp_path / "moved") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)
    # A world that does not fit is refused before a rank is started.
    shown = train(config, tmp_path / "moved", 3, 8, expect=1)
    assert "3 ranks cannot share the 2 micro-batches of a step; worlds that fit: [1, 2]" in shown
    assert "training ended early" not in shown
