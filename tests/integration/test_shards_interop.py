"""Shards are read by webdataset, by DALI and by plain tarfile; builds survive kills and give the same bytes."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from poselib.errors import InputError
from shards.build import build
from shards.manifest import ShardSet
from shards.sample import NUMERIC_SIZE, decode_names, decode_vector
from shards.settings import BuildSettings
from shards.verify import verify

pytestmark = pytest.mark.integration

BUILD = """
import sys
from pathlib import Path
from shards.build import build
from shards.settings import BuildSettings

if __name__ == "__main__":
    raw, out, workers = sys.argv[1:]
    build(BuildSettings(raw=Path(raw), out=Path(out), stored_px=96, every=1, every_test=2, workers=int(workers)))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("script") / "build_shards.py"
    path.write_text(BUILD)
    return path


def start(script: Path, raw: Path, out: Path, workers: int) -> subprocess.Popen:
    arguments = [sys.executable, str(script), str(raw), str(out), str(workers)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(arguments, env=environment, start_new_session=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def expected(folder: Path) -> dict[str, tuple[bytes, np.ndarray]]:
    """Key -> JPEG bytes and vector, through our own reader."""
    shards = ShardSet.open(folder)
    jpegs, vectors = shards.read_bytes(range(len(shards)))
    return {shards.read(row).key: (bytes(jpegs[row]), vectors[row]) for row in range(len(shards))}


@pytest.mark.parametrize("source", ["h36m", "mpii"])
def test_plain_tarfile_reads_the_shards(shard_sets, source):
    folder, seen = shard_sets[source], {}
    for shard in ShardSet.open(folder).manifest.shards:
        with tarfile.open(folder / shard.file) as tar:
            for member in tar:
                key, ending = member.name.split(".")
                seen.setdefault(key, {})[ending] = tar.extractfile(member).read()
    truth = expected(folder)
    assert seen.keys() == truth.keys()
    for key, (jpeg, vector) in truth.items():
        assert seen[key]["jpg"] == jpeg
        np.testing.assert_array_equal(decode_vector(seen[key]["npy"]), vector)
        assert decode_names(seen[key]["json"]).source == source


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its tars to the collector
@pytest.mark.parametrize("source", ["h36m", "mpii"])
def test_webdataset_reads_the_shards(shard_sets, source):
    import webdataset

    folder = shard_sets[source]
    urls = [str(folder / shard.file) for shard in ShardSet.open(folder).manifest.shards]
    truth = expected(folder)
    keys = []
    for item in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False):
        keys.append(item["__key__"])
        jpeg, vector = truth[item["__key__"]]
        assert item["jpg"] == jpeg
        np.testing.assert_array_equal(decode_vector(item["npy"]), vector)
        assert json.loads(item["json"])["source"] == source
    assert keys == list(truth)
    gc.collect()


def test_dali_reads_the_shards_with_our_index(shard_sets):
    from nvidia.dali import fn, pipeline_def

    folder = shard_sets["h36m"]
    tars = [folder / shard.file for shard in ShardSet.open(folder).manifest.shards]

    @pipeline_def(batch_size=4, num_threads=1, device_id=None)
    def read():
        jpeg, vector = fn.readers.webdataset(
            paths=[str(tar) for tar in tars],
            index_paths=[str(tar.with_suffix(".idx")) for tar in tars],
            ext=["jpg", "npy"],
            missing_component_behavior="error",
        )
        return jpeg, fn.decoders.numpy(vector)

    pipeline = read()
    pipeline.build()
    truth = list(expected(folder).values())
    seen = 0
    while seen < len(truth):
        jpegs, vectors = pipeline.run()
        for index in range(min(4, len(truth) - seen)):
            jpeg, vector = truth[seen]
            assert bytes(np.asarray(jpegs.at(index))) == jpeg
            found = np.asarray(vectors.at(index))
            assert found.shape == (NUMERIC_SIZE,)
            np.testing.assert_array_equal(found, vector)
            seen += 1


@pytest.mark.parametrize("source", ["h36m", "mpii", "voc"])
def test_the_index_is_what_dalis_own_tool_writes(shard_sets, source, tmp_path):
    from wds2idx import IndexCreator

    tars = sorted(shard_sets[source].glob("*.tar"))
    assert tars
    for tar in tars:
        with IndexCreator(str(tar), str(tmp_path / "own.idx"), verbose=False) as creator:
            creator.create_index()
        assert tar.with_suffix(".idx").read_text() == (tmp_path / "own.idx").read_text()


def test_any_number_of_workers_gives_the_same_bytes(studio, shard_sets, script, tmp_path):
    assert start(script, studio / "h36m", tmp_path / "out", 3).wait(240) == 0
    assert content(tmp_path / "out") == content(shard_sets["h36m"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_killed_in_the_middle_ends_with_the_same_bytes(studio, shard_sets, script, tmp_path, workers):
    out = tmp_path / "out"
    victim = start(script, studio / "h36m", out, workers)
    until = time.monotonic() + 120
    while not list(out.glob("*.tar")) and victim.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)  # the parent alone: its workers must notice
    victim.wait(60)
    while any(is_alive(process) for process in members(victim.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [process for process in members(victim.pid) if is_alive(process)]
    assert not (out / "manifest.json").exists()
    assert start(script, studio / "h36m", out, workers).wait(240) == 0
    verify(out)
    assert content(out) == content(shard_sets["h36m"])


def test_a_worker_that_meets_damage_under_strict_stops_all_and_leaves_nothing_torn(studio, tmp_path):
    raw = shutil.copytree(studio / "h36m", tmp_path / "raw")
    video = next(iter(sorted(raw.glob("S9/Videos/Sitting*"))))
    video.write_bytes(b"")
    settings = BuildSettings(raw=raw, out=tmp_path / "out", stored_px=96, every=1, workers=2, strict=True)
    with pytest.raises(InputError, match=rf"{video.name}.*strict"):
        build(settings)
    assert not list((tmp_path / "out").rglob("*.writing-*"))
    assert not (tmp_path / "out" / "manifest.json").exists()


def members(session: int) -> list[int]:
    """The processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session:
                found.append(int(entry.name))
    return found


def is_alive(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
