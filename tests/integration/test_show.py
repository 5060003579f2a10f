"""`pose loader show`, and the sheet that a training leaves at its first start, with objects pasted in both."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cluster.config import load
from cluster.data import load_bank, open_data
from cluster.settings import Run
from cluster.show import SHEET, first_samples
from cluster.tracking.journal import read_records
from shards.show import describe, draw_sheet

pytestmark = pytest.mark.integration

CONFIG = """
base: augment/report.yaml
name: tiny
epochs: 1
validate_every: 9
log_every: 1
data: {{h36m: {h36m}, mpii: {mpii}, voc: {voc}, every_train: 1, train_subjects: [S1], val_subjects: [S1],
  test_subjects: [S9]}}
augment: {{zoom: 0.2, rotation_deg: 20, occluders: 0.9, occluder_size: [0.5, 1.5]}}
crop: {{allow_border: true}}
model: {{backbone: resnet10, width: 8, crop_width: 64, crop_height: 64, depth: 8, ppm_bins: null, decoder_channels: 8,
  decoder_layers: 1}}
batch: {{micro: 8}}
engine: {{ranks: 1, device: cpu, threads: 1}}
tracking: {{enabled: false}}
"""


@pytest.fixture
def config(shard_sets, tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG.format(**shard_sets))
    return path


def pose(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pose", *map(str, words)], capture_output=True, text=True, timeout=250)


def test_the_sheet_shows_what_the_training_begins_with(config):
    run = load(Run, config)
    data = open_data(run)
    batch = first_samples(run, data, load_bank(run, data), 20)
    for index in range(2):
        expected = data.order.micro_batch(index)
        np.testing.assert_array_equal(batch.draws.sample[index * 8 : index * 8 + 8], expected.sample)
        np.testing.assert_array_equal(batch.draws.source[index * 8 : index * 8 + 8], expected.source)
    assert batch.pictures.shape == (20, 64, 64, 3)
    told = [describe(batch, place) for place in range(20)]
    from_h36m = batch.draws.source == 0
    assert all(line == "as stored" for line, ours in zip(told, from_h36m, strict=True) if not ours)
    for line, mirrored, count in zip(told, batch.plan.mirrored, batch.plan.occlusions.count, strict=True):
        assert ("mirrored" in line) == mirrored
        assert (f"{count} object" in line) == (count > 0)
    sheet = draw_sheet(batch, data.train, run.model)
    assert sheet.shape[1] > 6 * 288
    assert sheet.shape[0] > 4 * 288


def test_loader_show_writes_a_sheet_and_no_run(config, tmp_path):
    done = pose("loader", "show", "--config", config, "--sheet", tmp_path / "new" / "s.png", "--samples", "7")
    assert done.returncode == 0, done.stderr
    assert "new/s.png" in done.stdout
    assert cv2.imread(str(tmp_path / "new" / "s.png")).shape[1] > 6 * 288
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "tiny.yaml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.voc", "null"], "data.voc"),
        (["--sheet", "show.bmp"], "sheet must end in .jpg or .png"),
    ],
)
def test_loader_show_refuses_in_one_line(config, words, message):
    done = pose("loader", "show", "--config", config, *words)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_training_leaves_its_sheet_at_the_first_start_alone(config, tmp_path):
    words = ("train", "--config", config, "--runs_dir", tmp_path / "runs")
    done = pose(*words)
    assert done.returncode == 0, done.stderr
    sheet = tmp_path / "runs" / "tiny" / SHEET
    assert cv2.imread(str(sheet)) is not None
    sheet.unlink()
    again = pose(*words, "--epochs", "2")
    assert again.returncode == 0, again.stderr
    assert "resuming after step" in again.stdout
    assert not sheet.exists()
    artifacts = [record["path"] for record, _ in read_records(sheet.parent) if record["kind"] == "artifact"]
    assert artifacts.count(SHEET) == 1
