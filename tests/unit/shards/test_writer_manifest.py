import dataclasses
import json
import os
import pickle
import shutil
import sys
import tarfile
import zlib

import numpy as np
import pytest

import pose
from poselib.errors import InputError
from shards.build import build
from shards.manifest import DamagedSample, ShardSet
from shards.records import read_manifest
from shards.sample import NUMERIC_SIZE, decode_names, decode_vector
from shards.settings import BuildSettings
from shards.table import merge_tables, natural_order, row_type
from shards.verify import DamagedSet, verify
from shards.workers import run_apart

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def finished(human36m, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    build(BuildSettings(raw=human36m.raw, out=out, workers=1, stored_px=64))
    return out


@pytest.fixture
def copied(finished, tmp_path):
    """A finished set, to damage."""
    return shutil.copytree(finished, tmp_path / "set")


def test_a_sample_is_three_members_in_a_fixed_order_with_nothing_of_the_machine_in_them(finished):
    manifest = read_manifest(finished / "manifest.json")
    with tarfile.open(finished / manifest.shards[0].file) as tar:
        members = tar.getmembers()
    assert [m.name.split(".")[1] for m in members[:6]] == ["jpg", "json", "npy"] * 2
    assert len({m.name for m in members}) == len(members) == 3 * manifest.shards[0].samples
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o444)}


def build_in_worker(settings) -> tuple[str, bool]:
    """The set's hash, and whether the process that made it holds torch."""
    return build(settings).manifest.set_hash, "torch" in sys.modules


def test_a_worker_writes_the_same_bytes_without_torch(human36m, finished, tmp_path):
    settings = BuildSettings(raw=human36m.raw, out=tmp_path, workers=1, stored_px=64)
    (set_hash, has_torch), _ = run_apart(build_in_worker, settings)
    assert set_hash == read_manifest(finished / "manifest.json").set_hash
    assert not has_torch


def test_the_manifest_says_exactly_this(finished):
    fields = json.loads((finished / "manifest.json").read_bytes())
    assert list(fields) == [
        "format_version", "kind", "source", "synthetic", "settings", "lens", "box", "cover_width", "cover_height",
        "stored_px", "numeric", "samples", "subjects", "actions", "cameras", "parts", "counts", "shards",
        "index_sha256", "skipped", "known_faults", "split", "set_hash",
    ]  # fmt: skip
    assert fields["format_version"] == 1
    assert fields["kind"] == "people"
    assert fields["synthetic"] is False
    assert fields["subjects"] == ["S1", "S11"]
    assert fields["counts"]["subjects"] == {"S1": 18, "S11": 9}
    assert fields["counts"]["actions"] == {"Directions": 15, "TakingPhoto": 6, "Walking": 6}
    assert sum(shard["samples"] for shard in fields["shards"]) == fields["samples"] == 27
    assert not {"raw", "out", "workers", "strict"} & fields["settings"].keys()
    assert dataclasses.asdict(read_manifest(finished / "manifest.json"))["set_hash"] == fields["set_hash"]
    assert sorted(p.name.split(".")[-1] for p in finished.iterdir()) == ["idx"] * 5 + ["json", "npy"] + ["tar"] * 5


def test_rows_point_at_the_members(finished):
    shards = ShardSet.open(finished)
    assert shards.samples.dtype == row_type("people")
    assert isinstance(shards.samples, np.memmap)
    jpegs, vectors = shards.read_bytes(range(len(shards)))
    row = 0
    for shard in shards.manifest.shards:
        with tarfile.open(finished / shard.file) as tar:
            members = tar.getmembers()
            for jpg, names, npy in zip(members[::3], members[1::3], members[2::3], strict=True):
                content = [tar.extractfile(member).read() for member in (jpg, names, npy)]
                assert bytes(jpegs[row]) == content[0]
                np.testing.assert_array_equal(vectors[row], decode_vector(content[2]))
                sample = shards.read(row)
                assert (sample.key, sample.jpeg) == (jpg.name.removesuffix(".jpg"), content[0])
                assert sample.names == decode_names(content[1])
                place = shards.samples[row]
                assert shards.names["subject"][place["subject"]] == sample.names.subject
                assert shards.names["action"][place["action"]] == sample.names.action
                assert shards.names["camera"][place["camera"]] == sample.names.camera
                assert (place["frame"], place["subaction"]) == (sample.names.frame, sample.names.subaction)
                row += 1
    assert row == 27


def test_rows_can_be_read_in_any_order(finished):
    shards = ShardSet.open(finished)
    rows = np.random.default_rng(0).permutation(27)[:9]
    jpegs, vectors = shards.read_bytes(rows)
    assert vectors.shape == (9, NUMERIC_SIZE)
    assert vectors.dtype == np.float32
    for row, jpeg, vector in zip(rows, jpegs, vectors, strict=True):
        again = shards.read_bytes([row])
        assert bytes(again[0][0]) == bytes(jpeg)
        np.testing.assert_array_equal(again[1][0], vector)


def test_select_filters_by_name_and_frame(finished):
    shards = ShardSet.open(finished)
    assert len(shards.select()) == 27
    rows = shards.select(subjects=("S11",), every=10, cameras=("55011271",))
    picked = [shards.read(row).names for row in rows]
    assert {(n.subject, n.camera) for n in picked} == {("S11", "55011271")}
    assert sorted(n.frame for n in picked) == [0, 0, 10, 10]
    assert (np.diff(rows) > 0).all()
    with pytest.raises(InputError, match="no subject S7, only S1, S11"):
        shards.select(subjects=("S7",))
    with pytest.raises(InputError, match="no sample fits"):
        shards.select(actions=("Walking",), subjects=("S1",))


def test_a_pickled_set_is_only_its_folder(finished):
    shards = ShardSet.open(finished)
    shards.read(0)
    data = pickle.dumps(shards)
    assert len(data) < 300
    again = pickle.loads(data)
    assert again.read(3).jpeg == shards.read(3).jpeg


def test_verify_accepts_a_sound_set_and_names_each_damaged_sample(copied):
    verify(copied)
    shards = ShardSet.open(copied)
    keys = []
    for row in (2, 20):
        place, sample = shards.samples[row], shards.read(row)
        keys.append((shards.manifest.shards[place["shard"]].file, sample.key))
        with (copied / keys[-1][0]).open("r+b") as stream:
            stream.seek(int(place["jpg_offset"]) + int(place["jpg_size"]) // 2)
            byte = stream.read(1)
            stream.seek(-1, 1)
            stream.write(bytes([byte[0] ^ 4]))
    with pytest.raises(InputError) as caught:
        verify(copied)
    message = str(caught.value)
    for file, key in keys:
        assert f"{file} ({key})" in message
    assert message.count(".tar") == 2
    assert "\n" not in message


def test_verify_names_what_a_tar_that_was_cut_short_has_lost(copied, capsys):
    shards = ShardSet.open(copied)
    [number] = [n for n, shard in enumerate(shards.manifest.shards) if shard.file == "S1_Directions_1.tar"]
    rows = np.flatnonzero(shards.samples["shard"] == number)
    keys = [shards.read(row).key for row in rows]
    os.truncate(copied / "S1_Directions_1.tar", int(shards.samples["npy_offset"][rows[1]]))
    with pytest.raises(DamagedSet, match=r"is damaged: S1_Directions_1\.tar") as caught:
        verify(copied)
    [damage] = caught.value.damage
    assert damage.keys == tuple(keys[1:])
    assert pose.main(["shards", "verify", str(copied)]) == 1
    assert capsys.readouterr().out.splitlines() == [f"damaged: S1_Directions_1.tar: {key}" for key in keys[1:]]


TORN = {
    "cut": lambda text: text[:-5],
    "place": lambda text: text.replace("jpg 512 ", "jpg 1024 "),
    "name": lambda text: text.replace("S1_", "S2_"),
}


@pytest.mark.parametrize("kind", list(TORN))
def test_verify_reads_the_index_for_dali_too(copied, kind):
    path = copied / "S1_Directions_1.idx"
    path.write_text(TORN[kind](path.read_text()))
    with pytest.raises(DamagedSet, match=r"is damaged: S1_Directions_1\.idx \(it does not fit its tar\)"):
        verify(copied)
    path.unlink()
    with pytest.raises(DamagedSet, match=r"is damaged: S1_Directions_1\.idx"):
        verify(copied)


def test_verify_sees_bytes_outside_of_samples_and_a_changed_table(copied):
    shards = ShardSet.open(copied)
    with (copied / shards.manifest.shards[1].file).open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"x")
    with pytest.raises(InputError, match=r"\.tar \(outside of its samples\)"):
        verify(copied)
    with (copied / "samples.npy").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"x")
    with pytest.raises(InputError, match=r"samples\.npy"):
        verify(copied)


def test_open_refuses_what_is_not_a_whole_set(copied, tmp_path):
    shards = ShardSet.open(copied)
    with pytest.raises(InputError, match="is not a folder"):
        ShardSet.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="the build has not finished, run"):
        ShardSet.open(tmp_path)
    tar = copied / shards.manifest.shards[0].file
    content = tar.read_bytes()
    tar.write_bytes(content[:-512])
    with pytest.raises(
        InputError, match=f"{tar.name} has {len(content) - 512} bytes, the manifest says {len(content)}"
    ):
        ShardSet.open(copied)
    tar.unlink()
    with pytest.raises(InputError, match=f"{tar.name} is missing"):
        ShardSet.open(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"format_version": 1', '"format_version": 99'), "has format version 99"),
        (lambda text: text[: len(text) // 2], "is damaged"),
        (lambda text: "[]", "is damaged"),
        (lambda text: text.replace('"set_hash"', '"other"'), "is damaged"),
        (lambda text: text.replace('"split"', '"other"'), "is whole, but from an early version .* did not write split"),
        (lambda text: text.replace('"samples": 27', '"samples": 0'), "holds no samples"),
        (lambda text: text.replace('"samples": 27', '"samples": 26'), "does not fit"),
    ],
)
def test_open_refuses_a_manifest_that_is_none(copied, change, message):
    path = copied / "manifest.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=message):
        ShardSet.open(copied)


def test_a_later_versions_extra_fields_are_passed_over(copied):
    path = copied / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"new": 1}))
    assert len(ShardSet.open(copied)) == 27


def test_reading_a_file_cut_after_opening_is_an_error_that_names_it(copied):
    shards = ShardSet.open(copied)
    tar = copied / shards.manifest.shards[0].file
    tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(InputError, match=rf"{tar.name}, sample 1 \(\w+\): the file is too short"):
        shards.read_bytes([1])


def test_a_vector_of_another_shape_is_an_error(copied):
    shards = ShardSet.open(copied)
    place = shards.samples[0].copy()
    start, stop = int(place["jpg_offset"]), int(place["npy_offset"]) + int(place["npy_size"])
    with (copied / shards.manifest.shards[0].file).open("r+b") as stream:
        stream.seek(int(place["npy_offset"]))
        stream.write(b"PK")
        stream.flush()
        with pytest.raises(DamagedSample, match="not those that were written"):
            shards.read_bytes([0])
        stream.seek(start)
        changed = zlib.crc32(stream.read(stop - start))
    rows = np.load(copied / "samples.npy")
    rows["crc32"][0] = changed  # as a set would hold it that was written so
    np.save(copied / "samples.npy", rows)
    with pytest.raises(DamagedSample, match="no float32 vector"):
        ShardSet.open(copied).read_bytes([0])


def test_tables_with_different_names_merge_under_one_code():
    def table(subjects, codes):
        rows = np.zeros(len(codes), row_type("people"))
        rows["subject"] = codes
        return rows, {"subject": subjects, "action": [""], "camera": [""], "part": [""]}

    rows, names = merge_tables([table(["S11"], [0, 0]), table(["S1", "S9"], [1, 0])])
    assert names["subject"] == ["S1", "S9", "S11"]
    assert rows["subject"].tolist() == [2, 2, 1, 0]
    assert rows["shard"].tolist() == [0, 0, 1, 1]
    assert sorted(["S11", "S5", "S9"], key=natural_order) == ["S5", "S9", "S11"]
