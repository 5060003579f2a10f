"""`sbatch --nodes=2 slurm/train.sh`: one model trained by the ranks of two nodes."""

import json
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from lab import Lab

pytestmark = pytest.mark.slurm

SCRIPT = Path(__file__).parents[2] / "slurm" / "train.sh"
CONFIG = """
name: two-nodes
epochs: 2
data: {{h36m: {h36m}, mpii: {mpii}, train_subjects: [S1], val_subjects: [S1], test_subjects: [S9], every_val: 2}}
model:
  {{backbone: resnet18, width: 8, crop_width: 64, crop_height: 64, depth: 4, ppm_bins: [1, 2], ppm_channels: 16,
   decoder_channels: 16, decoder_layers: 2}}
batch: {{micro: 4}}
engine: {{timeout_s: 60, threads: 1}}
"""


def test_two_nodes_train_one_model(lab: Lab, shard_sets: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "tiny.yaml").write_text(CONFIG.format(**shard_sets))
    job = lab.sbatch("--nodes=2", SCRIPT, "--config", "tiny.yaml", "--data.every_train", "1", cwd=tmp_path)
    lab.wait(job, "COMPLETED", seconds=240)
    run = tmp_path / "runs" / "two-nodes"
    with safe_open(run / "model.safetensors", framework="pt") as weights:
        assert len(list(weights.keys())) > 50
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validated = [line["step"] for line in lines if "val/mpjpe_mm" in line.get("values", {})]
    # 32 + 12 samples in micro-batches of 4, two ranks: an epoch is 5.5 steps.
    assert validated == [6, 11]
    assert [line["value"] for line in lines if line["kind"] == "status"] == ["running", "finished"]
    assert "2 ranks" in lab.output(job)
    assert "\x1b" not in lab.output(job), "a progress bar went into the log"
