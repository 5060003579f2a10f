"""Annotations as columns: written whole, mapped, made anew when their files change, and cheap for workers."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest

import shards.plan as plan_module
from poselib.errors import InputError
from shards.build import build
from shards.building import hold_folder
from shards.columns import Piece, decode_texts, encode_texts, read_places, write_columns
from shards.plan import plan_parts, unpacked
from shards.readers import READERS
from shards.readers.stills_index import pack, unpack
from shards.settings import BuildSettings
from shards.workers import peak_mib, run_apart

pytestmark = pytest.mark.unit

ROWS, PIECES = 4000, 25
ROW_BYTES = 17 * 3 * 8


def write_mpii(raw_writers, raw) -> BuildSettings:
    raw_writers.write_mpii(raw, 12)
    return BuildSettings(raw=raw, out=raw.with_name("set"), workers=1, stored_px=64)


def test_columns_come_back_as_they_were(tmp_path):
    texts = ("Füße.jpg", "", "a/b.jpg")
    pieces = [
        Piece("one", {"note": "x", "lens": [0.1, 1 / 3]}, {"number": np.arange(3), "text": encode_texts(texts)}),
        Piece("empty", None, {}),
        Piece("two", [], {"number": np.arange(5, 7), "text": encode_texts(("a longer name", "b"))}),
    ]
    folder = tmp_path / "index"
    assert read_places(folder) is None
    write_columns(folder, pieces)
    places = read_places(folder)
    assert [name for name, _ in places] == ["one", "empty", "two"]
    for (_, place), piece in zip(places, pieces, strict=True):
        columns = place.columns()
        assert place.plain == piece.plain
        assert columns.keys() == piece.columns.keys()
        assert all(isinstance(column, np.memmap) for column in columns.values())
        if columns:
            np.testing.assert_array_equal(columns["number"], piece.columns["number"])
            assert decode_texts(columns["text"]) == decode_texts(piece.columns["text"])
    assert decode_texts(places[0][1].columns()["text"]) == texts
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_the_first_index_stays_and_a_torn_one_is_none(tmp_path):
    write_columns(tmp_path / "index", [Piece("first", 1, {})])
    write_columns(tmp_path / "index", [Piece("second", 2, {})])
    assert [name for name, _ in read_places(tmp_path / "index")] == ["first"]
    (tmp_path / "index" / "pieces.json").write_text("[[")
    assert read_places(tmp_path / "index") is None


def test_an_index_is_used_again_until_its_files_change(raw_writers, tmp_path, monkeypatch):
    settings = write_mpii(raw_writers, tmp_path / "raw")
    read = []
    reader = READERS["mpii"]
    counted = replace(reader, parts=lambda s: read.append(s) or reader.parts(s))
    monkeypatch.setitem(READERS, "mpii", counted)
    with hold_folder(settings.out, whole=True):
        plan_parts(settings, "mpii")
        plan_parts(settings, "mpii")
        assert len(read) == 1
        [annotations] = settings.raw.glob("*.mat")
        os.utime(annotations, (1, 1))
        plan_parts(settings, "mpii")
        assert len(read) == 2


def test_large_annotations_are_read_by_a_process_of_their_own(raw_writers, tmp_path, monkeypatch, capsys):
    settings = write_mpii(raw_writers, tmp_path / "raw")
    here = build(settings).manifest
    monkeypatch.setattr(plan_module, "SMALL_BYTES", 0)
    monkeypatch.setitem(READERS, "mpii", replace(READERS["mpii"], parts=None))  # this process could not
    apart = build(replace(settings, out=tmp_path / "apart")).manifest
    assert apart == here
    assert " MiB of annotations indexed, 1 parts, in " in capsys.readouterr().err
    [annotations] = settings.raw.glob("*.mat")
    annotations.write_bytes(b"nothing")
    with pytest.raises(InputError, match=f"{annotations.name} cannot be read"):
        build(replace(settings, out=tmp_path / "torn"))


def test_a_part_that_goes_to_a_worker_is_small(raw_writers, tmp_path):
    settings = write_mpii(raw_writers, tmp_path / "raw")
    with hold_folder(settings.out, whole=True):
        [part] = plan_parts(settings, "mpii")
    direct = READERS["mpii"].parts(settings)[0]
    assert len(pickle.dumps(part)) < 2000
    for there, here in zip(unpacked("mpii", part).content, direct.content, strict=True):
        assert (there.name, there.part, there.faults) == (here.name, here.part, here.faults)
        for one, other in zip(there.people, here.people, strict=True):
            assert (one.index, one.scale, one.head_size) == (other.index, other.scale, other.head_size)
            np.testing.assert_array_equal(one.joints, other.joints)
            np.testing.assert_array_equal(one.centre, other.centre)


def still_piece(number: int) -> Piece:
    """A recording of `ROWS` pictures."""
    files = [f"images/s_01_act_{number:02d}_subact_01_ca_01/picture_{row:06d}.jpg" for row in range(ROWS)]
    view = ["54138969", [1.0] * 4, [0.0] * 5, "note", ROWS]
    plain = {"recording": ["S1", "Walking", number], "views": [view], "lost": []}
    joints = np.full((ROWS, 17, 3), float(number))
    columns = {"frames": np.arange(ROWS, dtype=np.int32), "files": encode_texts(files), "joints_mm": joints}
    return Piece(str(number), plain, columns)


def read_all(folder) -> float:
    """Read every piece as a worker does; by how many MiB this raised the peak beyond that of the first."""
    places = read_places(folder)
    first = 0.0
    for number, (_, place) in enumerate(places):
        take = unpack(place.plain, place.columns())
        assert take.views[0].joints_mm.sum() == number * ROWS * 51
        first = first or peak_mib()
    return peak_mib() - first


def test_a_worker_holds_the_rows_of_one_part_however_many_there_are(tmp_path):
    write_columns(tmp_path / "index", [still_piece(number) for number in range(PIECES)])
    growth, peak = run_apart(read_all, tmp_path / "index")
    whole = ROWS * PIECES * ROW_BYTES / 2**20
    assert whole > 35
    assert growth < whole / 8
    assert peak > growth


def test_a_recording_comes_back_as_it_was():
    piece = still_piece(3)
    take = unpack(piece.plain, dict(piece.columns))
    plain, columns = pack(take)
    assert plain == piece.plain
    for name, column in piece.columns.items():
        np.testing.assert_array_equal(columns[name], column)
