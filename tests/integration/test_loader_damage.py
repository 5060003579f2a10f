"""Damaged samples under both policies: named, or replaced, and nothing else moves."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from poselib.errors import InputError
from poselib.settings import ModelSettings
from shards.damage import read_samples
from shards.loader import Batch, Source, load_batches
from shards.loader_settings import AugmentSettings, CropSettings, LoaderSettings
from shards.manifest import DamagedSample, ShardSet
from shards.order import Draws, Order

pytestmark = pytest.mark.integration

MODEL = ModelSettings(crop_width=32, crop_height=32)
MICRO = 5


@pytest.fixture
def folder(shard_sets, tmp_path) -> Path:
    return shutil.copytree(shard_sets["h36m"], tmp_path / "set")


def source_of(folder, tolerant=False) -> Source:
    shards = ShardSet.open(folder, tolerant=tolerant)
    return Source(shards, shards.select(), AugmentSettings())


def load(source: Source, indices, damaged="skip", prefetch=3) -> list[Batch]:
    size = len(source.rows)
    order = Order(1, (size,), (size,), MICRO)
    draws = [order.micro_batch(index) for index in indices]
    settings = LoaderSettings(device="cpu", prefetch=prefetch, damaged=damaged)
    crop = CropSettings(allow_border=True)
    return list(load_batches([source], draws, MICRO, MODEL, crop, settings, torch.device("cpu"), seed=2))


def span(folder: Path, row: int) -> tuple[Path, int, int, str]:
    """A sample's tar, the start and end of its JPEG, and its key."""
    shards = ShardSet.open(folder)
    place = shards.samples[row]
    start = int(place["jpg_offset"])
    return (
        folder / shards.manifest.shards[place["shard"]].file,
        start,
        start + int(place["jpg_size"]),
        shards.read(row).key,
    )


def flip_a_byte(folder: Path, row: int) -> str:
    path, start, stop, key = span(folder, row)
    content = bytearray(path.read_bytes())
    content[(start + stop) // 2] ^= 1
    path.write_bytes(content)
    return key


def store_garbage(folder: Path, *rows: int) -> None:
    """Pictures that are none, in a set that agrees with itself: only decoding can tell."""
    table = np.load(folder / "samples.npy")
    for row in rows:
        path, start, stop, _ = span(folder, row)
        content = bytearray(path.read_bytes())
        content[start:stop] = bytes(stop - start)
        path.write_bytes(content)
        end = int(table["npy_offset"][row]) + int(table["npy_size"][row])
        table["crc32"][row] = zlib.crc32(content[start:end])
        np.save(folder / "samples.npy", table)


def damaged_places(batches: list[Batch], bad: set[int]) -> list[tuple[int, int]]:
    return [(b, p) for b, batch in enumerate(batches) for p, row in enumerate(batch.draws.sample) if int(row) in bad]


def check_replaced(found: list[Batch], sound: list[Batch], bad: set[int]) -> None:
    """The damaged samples' places are taken by the next sound ones; all else is as in the undamaged set."""
    assert len(found) == len(sound)
    for one, other in zip(found, sound, strict=True):
        places = [p for p, row in enumerate(other.draws.sample) if int(row) in bad]
        assert len(one.replaced) == len(places)
        for p in range(MICRO):
            stand_in = next(q % MICRO for q in range(p, p + MICRO) if int(other.draws.sample[q % MICRO]) not in bad)
            assert one.draws.sample[p] == other.draws.sample[stand_in]
            assert torch.equal(one.pictures[p], other.pictures[stand_in])
            assert torch.equal(one.targets[p], other.targets[stand_in])
            assert torch.equal(one.gains[p], other.gains[stand_in])


def test_damage_is_named_by_shard_and_key_and_stops_by_default(folder):
    key = flip_a_byte(folder, 7)
    path = span(folder, 0)[0]
    with pytest.raises(DamagedSample, match=rf"set/\w+\.tar, sample 7 \({key}\): its bytes are not those"):
        load(source_of(folder), range(len(source_of(folder).rows) // MICRO + 1), "error")
    assert path.exists()


@pytest.mark.parametrize("prefetch", [1, 4])
def test_skipped_samples_are_replaced_by_the_next_of_their_micro_batch(folder, shard_sets, prefetch):
    sound = load(source_of(shard_sets["h36m"]), range(8))
    bad = {3, 11, 17}
    for row in bad:
        flip_a_byte(folder, row)
    assert len(damaged_places(sound, bad)) >= 2
    check_replaced(load(source_of(folder), range(8), prefetch=prefetch), sound, bad)
    # Resumed in the middle, by another prefetching, the same stand in.
    check_replaced(load(source_of(folder), range(4, 8), prefetch=2), sound[4:], bad)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_pictures_that_only_dali_finds_to_be_none_are_replaced_in_successive_batches(folder, shard_sets, prefetch):
    sound = load(source_of(shard_sets["h36m"]), range(7))
    # The last sample of batch 1, all but one of batch 2, one in batches 3 and 6.
    places = [(1, 4), (2, 0), (2, 1), (2, 3), (2, 4), (3, 0), (6, 2)]
    bad = {int(sound[b].draws.sample[p]) for b, p in places}
    store_garbage(folder, *bad)
    found = load(source_of(folder), range(7), prefetch=prefetch)
    check_replaced(found, sound, bad)
    assert sum(len(batch.replaced) for batch in found) == len(damaged_places(sound, bad))
    assert all("is no JPEG" in line and ".tar, sample" in line for batch in found for line in batch.replaced)


def test_a_picture_that_is_none_is_named_and_stops_by_default(folder):
    key = span(folder, 4)[3]
    store_garbage(folder, 4)
    with pytest.raises(DamagedSample, match=rf"\({key}\): is no JPEG; `pose shards verify`"):
        load(source_of(folder), range(20), "error")


def test_a_micro_batch_of_nothing_but_damage_stops(folder):
    source = source_of(folder)
    rows = [0, 1]
    for row in rows:
        flip_a_byte(folder, row)
    draws = Draws(np.zeros(2, np.int64), np.zeros(2, np.int64), np.array(rows))
    with pytest.raises(InputError, match=r"all 2 samples of a micro-batch are damaged, the first: .*sample 0"):
        read_samples([source], draws, "skip")


def test_a_cut_tar_is_refused_when_opened_or_read_around(folder, shard_sets):
    shards = ShardSet.open(folder)
    last = len(shards) - 1
    path, _, stop, key = span(folder, last)
    sound = load(source_of(shard_sets["h36m"]), range(10))
    path.write_bytes(path.read_bytes()[: stop - 10])
    with pytest.raises(InputError, match="the manifest says"):
        ShardSet.open(folder)
    source = source_of(folder, tolerant=True)
    check_replaced(load(source, range(10)), sound, {last})
    with pytest.raises(DamagedSample, match=rf"{path.name}, sample {last} \({key}\): the file is too short"):
        source.shards.read(last)


def test_an_index_that_disagrees_with_its_tar_is_named_with_the_key_of_dalis_index(folder):
    key = span(folder, 2)[3]
    table = np.load(folder / "samples.npy")
    table["jpg_offset"][2] += 77
    table["shard"][3] = 999
    table["npy_offset"][4] = 2**60
    np.save(folder / "samples.npy", table)
    shards = ShardSet.open(folder)
    with pytest.raises(DamagedSample, match=rf"sample 2 \({key}\): its bytes are not those"):
        shards.read_bytes([2])
    with pytest.raises(DamagedSample, match=r"samples\.npy, sample 3: there is no shard 999"):
        shards.read_bytes([3])
    with pytest.raises(DamagedSample, match=r"sample 4 \(\w+\): samples\.npy says that it takes"):
        shards.read_bytes([4])


@pytest.mark.parametrize("in_place", [True, False])
def test_a_shard_replaced_during_training_is_named_or_read_as_it_was(folder, in_place):
    source = source_of(folder)
    path = span(folder, 0)[0]
    before = source.shards.read_bytes([0])[0][0]
    other = folder / source.shards.manifest.shards[-1].file
    if in_place:
        path.write_bytes(other.read_bytes().ljust(path.stat().st_size, b"\0"))
        with pytest.raises(DamagedSample, match=rf"{path.name}, sample 0 "):
            source.shards.read_bytes([0])
    else:
        shutil.copy(other, folder / "new")
        (folder / "new").replace(path)
        assert bytes(source.shards.read_bytes([0])[0][0]) == bytes(before)  # an open file outlives its name
        fresh = ShardSet.open(folder, tolerant=True)
        with pytest.raises(DamagedSample, match=rf"{path.name}, sample 0 "):
            fresh.read_bytes([0])
