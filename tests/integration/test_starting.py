"""Two ranks that start from weights: of a file, and of another run."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from poselib.model.backbone import ResNet

pytestmark = pytest.mark.integration

SMALL = """
name: first
epochs: 1
data: {{h36m: {h36m}, every_train: 1, every_val: 1, every_test: 1,
  train_subjects: [S1], val_subjects: [S1], test_subjects: [S9]}}
model: {{backbone: resnet18, width: 8, crop_width: 64, crop_height: 64, depth: 8, ppm_bins: null, decoder_channels: 16,
  decoder_layers: 1}}
batch: {{micro: 4}}
optimizer: {{lr: 1e-12}}
engine: {{ranks: 2, device: cpu, timeout_s: 60}}
tracking: {{enabled: false}}
"""


def train(config: Path, runs: Path, *words: str) -> str:
    command = [sys.executable, "-m", "pose", "train", "--config", str(config), "--runs_dir", str(runs), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def started(shard_sets, tmp_path_factory) -> tuple[Path, Path, dict[str, torch.Tensor], str]:
    """A run that learned next to nothing from a file of weights: its config, folder, those weights, what it said."""
    folder = tmp_path_factory.mktemp("starting")
    config = folder / "small.yaml"
    config.write_text(SMALL.format(**shard_sets))
    torch.manual_seed(5)
    weights = {name: torch.rand_like(t, dtype=torch.float32) for name, t in ResNet("resnet18", 8).state_dict().items()}
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    torch.save(weights | {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}, folder / "weights.pth")
    shown = train(config, folder, "--weights", str(folder / "weights.pth"))
    return config, folder, weights, shown


def test_both_ranks_start_from_a_file(started):
    _, folder, weights, shown = started
    found = load_file(folder / "first" / "last.safetensors")
    for name, tensor in weights.items():
        if "running" not in name:
            torch.testing.assert_close(found[f"backbone.{name}"], tensor, rtol=0, atol=1e-6)
    assert shown.count("the backbone starts from") == 1
    digest = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
    tags = [json.loads(line) for line in (folder / "first" / "metrics.jsonl").read_text().splitlines()]
    assert any(record.get("values", {}).get("posecluster.start_sha256") == digest for record in tags)


def test_a_run_goes_on_without_the_file_that_it_started_from(started):
    config, folder, _, _ = started
    weights = folder / "weights.pth"
    moved = weights.rename(folder / "moved")
    try:
        shown = train(config, folder, "--weights", str(weights), "--epochs", "2", "--engine.ranks", "1")
    finally:
        moved.rename(weights)
    assert re.search(r"resuming after step \d+", shown)
    assert "starts from" not in shown


def test_another_run_is_fine_tuned_with_a_deeper_head(started):
    config, folder, _, _ = started
    words = ("--name", "second", "--init_from", str(folder / "first"), "--model.depth", "12", "--engine.ranks", "1")
    shown = train(config, folder, *words, "--init_fresh", "[head]")
    assert "model.depth 8 -> 12" in shown
    before, after = (load_file(folder / name / "model.safetensors") for name in ("first", "second"))
    assert after["decoder.head.weight"].shape == (204, 16, 1, 1)
    for name, tensor in before.items():
        if not name.startswith("decoder.head") and "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)
