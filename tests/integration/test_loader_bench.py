"""`pose loader bench`, and the loader's memory over thousands of batches."""

import os
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch

import pose
from poselib.settings import ModelSettings
from shards.loader import Source, load_batches
from shards.loader_bench import Times, advise
from shards.loader_settings import AugmentSettings, CropSettings, LoaderSettings
from shards.manifest import ShardSet
from shards.order import Order

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("with_objects", [False, True])
def test_every_stage_is_measured_beside_the_bound_of_the_slowest(shard_sets, capsys, with_objects):
    words = ["loader", "bench", str(shard_sets["h36m"]), "--seconds", "0.05", "--threads", "1", "--device", "cpu"]
    words += ["--batch", "4", "--crop_width", "64", "--crop_height", "96"]
    assert pose.main(words + (["--voc", str(shard_sets["voc"])] if with_objects else [])) == 0
    shown = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in shown.splitlines() if "│" in line}
    stages = ["read", "decode", "warp", *(["blend"] if with_objects else [])]
    stages += ["copy"] if torch.cuda.is_available() else []
    assert [name for name in rows if not name.startswith(("bound", "the whole"))] == stages
    lost = [name for name in stages if rows[name][0].strip() == "within noise"]
    assert set(lost) <= {"warp", "blend"}  # which are differences
    stages = [name for name in stages if name not in lost]
    rates = {name: float(rows[name][0]) for name in [*stages, "the whole loader"]}
    slowest = min(stages, key=rates.__getitem__)
    assert float(rows[f"bound: {slowest}"][0]) == rates[slowest]
    assert all(float(rows[name][1]) > 0 for name in stages)
    assert rates["the whole loader"] > 0
    assert " is slowest: " in shown.splitlines()[-1]


def test_a_difference_within_noise_counts_as_none():
    rng = np.random.default_rng(0)
    one, same, longer = (Times(rng.normal(mean, 0.1, 100)) for mean in (1.0, 1.0, 1.2))
    assert one.beyond(same) == same.beyond(one) == 0
    assert longer.beyond(one) == pytest.approx(0.2, abs=0.05)
    assert one.beyond(longer) == 0


def test_advice_names_what_is_left_to_do():
    assert "add threads, loader.threads up to 8" in advise("decode", 2, 8, False, False)
    assert "smaller crops" in advise("decode", 8, 8, False, False)
    assert "loader.device gpu" in advise("decode", 8, 8, False, True)
    assert "Warping is slowest: add threads" in advise("warp", 1, 8, False, True)
    assert "loader.device gpu" in advise("warp", 8, 8, False, True)
    assert "fewer" in advise("blend", 1, 8, True, True)
    assert "local disk" in advise("read", 1, 8, False, False)


def resident_slope(folder: Path, batches: int) -> float:
    """Growth of this process' resident memory in bytes per batch, over the last three quarters of a run."""
    shards = ShardSet.open(folder)
    source = Source(shards, shards.select(), AugmentSettings())
    size = len(source.rows)
    order = Order(0, (size,), (size,), 2)
    draws = (order.micro_batch(index) for index in count())
    model, settings = ModelSettings(crop_width=32, crop_height=32), LoaderSettings(device="cpu")
    crop, device = CropSettings(allow_border=True), torch.device("cpu")
    resident = np.ones(batches)  # a list would grow by 40 bytes per batch itself
    for number, _ in enumerate(islice(load_batches([source], draws, 2, model, crop, settings, device), batches)):
        resident[number] = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    settled = resident[batches // 4 :]
    return float(np.polyfit(np.arange(len(settled)), settled, 1)[0])


def test_resident_memory_stays_flat(shard_sets):
    # Two leaked crops would be 6144 bytes per batch, two leaked vectors 1200.
    assert resident_slope(shard_sets["h36m"], 2_000) < 400


@pytest.mark.drill
def test_resident_memory_stays_flat_over_ten_thousand_batches(shard_sets):
    assert resident_slope(shard_sets["h36m"], 10_000) < 100
