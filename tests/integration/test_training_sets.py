"""`pose train` on sets that do not lie in sound local folders: behind URLs, and with damaged samples."""

import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cluster.tracking.journal import curve, read_metrics
from shards.manifest import ShardSet, open_manifest

pytestmark = pytest.mark.integration

SMALL = """
name: small
epochs: 2
validate_every: 2
log_every: 1
data: {every_train: 1, every_val: 1, every_test: 1, train_subjects: [S1], val_subjects: [S1], test_subjects: [S9]}
augment: {occluders: 0.8}
model: {backbone: resnet10, width: 8, crop_width: 64, crop_height: 64, depth: 8, ppm_bins: null, decoder_channels: 16,
  decoder_layers: 1}
batch: {micro: 4}
engine: {ranks: 1, device: cpu, timeout_s: 120}
tracking: {enabled: false}
"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(shard_sets) -> Iterator[dict[str, str]]:
    """The sets behind HTTP."""
    handler = partial(QuietHandler, directory=str(shard_sets["h36m"].parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield {name: f"http://127.0.0.1:{server.server_port}/{folder.name}" for name, folder in shard_sets.items()}
        server.shutdown()
        thread.join()


def train(runs: Path, sets: dict[str, object], *words: str, expect: int = 0) -> str:
    """What `pose train` says; its run lies in `runs/small`."""
    runs.mkdir()
    (runs / "small.yaml").write_text(SMALL)
    places = [word for name, place in sets.items() for word in (f"--data.{name}", str(place))]
    command = [sys.executable, "-m", "pose", "train", "--config", str(runs / "small.yaml"), "--runs_dir", str(runs)]
    done = subprocess.run([*command, *places, *words], capture_output=True, text=True, timeout=280)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def curve_of(runs: Path, name: str) -> list[float]:
    return curve(read_metrics(runs / "small"), name)[1]


def test_a_run_reads_its_sets_and_its_objects_from_urls_as_from_folders(shard_sets, served, tmp_path):
    train(tmp_path / "local", shard_sets)
    train(tmp_path / "far", served, "--loader.storage.cache", str(tmp_path / "cache"))
    losses = curve_of(tmp_path / "local", "train/loss")
    assert len(losses) > 5
    assert curve_of(tmp_path / "far", "train/loss") == losses
    kept = {path.name for path in (tmp_path / "cache").glob("??/*")}
    people = ShardSet.open(shard_sets["h36m"])
    read = np.unique(people.samples["shard"][people.select(("S1",))]).tolist()
    others = [open_manifest(shard_sets[name]).shards for name in ("mpii", "voc")]
    assert kept >= {shard.sha256 for shard in (*(people.manifest.shards[number] for number in read), *sum(others, ()))}
    assert people.manifest.index_sha256 in kept


def test_a_run_stops_at_a_damaged_sample_or_goes_on_without_it(shard_sets, tmp_path):
    folder = shutil.copytree(shard_sets["h36m"], tmp_path / "h36m")
    shards = ShardSet.open(folder)
    keys = []
    for row in shards.select(("S1",))[[2, -3]].tolist():
        keys.append(shards.read(row).key)
        path = folder / shards.manifest.shards[int(shards.samples["shard"][row])].file
        content = bytearray(path.read_bytes())
        content[int(shards.samples["jpg_offset"][row]) + 100] ^= 1
        path.write_bytes(content)
    sets = shard_sets | {"h36m": folder}
    told = train(tmp_path / "error", sets, expect=1)
    assert any(f"({key}): its bytes are not those that were written" in told for key in keys)
    assert "Traceback" not in told
    told = train(tmp_path / "skip", sets, "--loader.damaged", "skip")
    for key in keys:
        assert f"({key}): its bytes are not those that were written" in told
    assert curve_of(tmp_path / "skip", "data/replaced")[-1] == 4  # two samples in each of two passes
