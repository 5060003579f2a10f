import errno
import fcntl
import shutil

import numpy as np
import pytest

import shards.make as make_module
from poselib.errors import InputError
from shards.build import build, open_shares
from shards.make import Unfinished
from shards.manifest import ShardSet
from shards.settings import BuildSettings
from shards.writer import array_bytes

pytestmark = pytest.mark.unit


def settings_for(raw, out, **changes) -> BuildSettings:
    return BuildSettings(raw=raw, out=out, **({"workers": 1, "stored_px": 64} | changes))


def content(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def reference(human36m, tmp_path_factory):
    out = tmp_path_factory.mktemp("reference")
    build(settings_for(human36m.raw, out))
    return content(out)


def interrupt_after(monkeypatch, parts: int, error: BaseException) -> None:
    """Let a build do some parts, then meet an error in the middle of writing the next one."""
    true, done = make_module.write_part, []

    def faulty(folder, records, name, kind, items):
        if len(done) < parts:
            done.append(name)
            return true(folder, records, name, kind, items)

        def torn():
            yield next(iter(items))
            raise error

        return true(folder, records, name, kind, torn())

    monkeypatch.setattr(make_module, "write_part", faulty)


def test_a_second_build_of_the_same_settings_changes_nothing(human36m, tmp_path, reference):
    build(settings_for(human36m.raw, tmp_path))
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    build(settings_for(human36m.raw, tmp_path))
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == stamps
    assert content(tmp_path) == reference


def test_an_interrupted_build_goes_on_where_it_stopped(human36m, tmp_path, reference, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            build(settings_for(human36m.raw, tmp_path))
    with pytest.raises(InputError, match="the build has not finished"):
        ShardSet.open(tmp_path)
    tars = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.tar")}
    assert len(tars) == 2
    assert not list(tmp_path.glob(".*writing*"))
    build(settings_for(human36m.raw, tmp_path))
    assert {p: p.stat().st_mtime_ns for p in tars} == tars  # taken over, not made again
    assert content(tmp_path) == reference


def test_what_a_killed_build_left_half_written_is_made_anew(human36m, tmp_path, reference, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            build(settings_for(human36m.raw, tmp_path))
    (tmp_path / ".S11_Walking_1.tar.writing-12345").write_bytes(b"torn")
    first, second, third = sorted(tmp_path.glob("*.tar"))
    first.write_bytes(first.read_bytes()[:-100])
    (tmp_path / ".building" / f"{second.stem}.json").write_text("{")
    third.with_suffix(".idx").unlink()
    build(settings_for(human36m.raw, tmp_path))
    assert content(tmp_path) == reference


def test_a_full_disk_is_one_line_and_leaves_finished_parts(human36m, tmp_path, reference, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(InputError, match=r"no space left for .*; finished parts stay"):
            build(settings_for(human36m.raw, tmp_path))
    assert len(list(tmp_path.glob("*.tar"))) == 1
    build(settings_for(human36m.raw, tmp_path))
    assert content(tmp_path) == reference


def test_other_settings_in_the_same_folder_are_refused(human36m, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            build(settings_for(human36m.raw, tmp_path))
    with pytest.raises(InputError, match=r"other settings \(quality 90 there, 80 now\)"):
        build(settings_for(human36m.raw, tmp_path, quality=80))
    build(settings_for(human36m.raw, tmp_path))
    before = content(tmp_path)
    with pytest.raises(InputError, match=r"other settings \(lens pinhole there, brown now\)"):
        build(settings_for(human36m.raw, tmp_path, lens="brown"))
    assert content(tmp_path) == before


@pytest.mark.parametrize("share", ["", "1/1"])
def test_a_build_that_is_refused_does_not_claim_its_folder(human36m, tmp_path, reference, share):
    with pytest.raises(InputError, match="subjects: S77 not found"):
        build(settings_for(human36m.raw, tmp_path, subjects=("S77",), share=share))
    with pytest.raises(InputError, match="subjects: S77 not found"):
        open_shares(settings_for(human36m.raw, tmp_path, subjects=("S77",)), 3)
    build(settings_for(human36m.raw, tmp_path, share=share))
    assert content(tmp_path) == reference


def test_two_builds_do_not_share_a_folder(human36m, tmp_path):
    (tmp_path / ".building").mkdir()
    with (tmp_path / ".building" / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another build is at work"):
            build(settings_for(human36m.raw, tmp_path))


def test_a_folder_of_something_else_is_left_alone(human36m, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"neither empty nor a shard set \(it holds thesis\.tex\)"):
        build(settings_for(human36m.raw, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        build(settings_for(human36m.raw, tmp_path / "file"))


def test_more_than_one_percent_of_damage_stops_the_build_until_it_is_repaired(human36m, tmp_path, reference):
    raw = shutil.copytree(human36m.raw, tmp_path / "raw")
    video = raw / "S1/Videos/Directions.54138969.mp4"
    sound = video.read_bytes()
    video.write_bytes(sound[:100])
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"3 of 27 samples are damaged, more than 1%.*Directions\.54138969\.mp4"):
        build(settings_for(raw, out))
    assert not (out / "manifest.json").exists()
    assert "Directions.54138969.mp4: " in (out / ".building" / "skipped.txt").read_text()
    video.write_bytes(sound)
    build(settings_for(raw, out))
    assert content(out) == reference


def test_strict_stops_at_the_first_damaged_sample(human36m, tmp_path):
    raw = shutil.copytree(human36m.raw, tmp_path / "raw")
    (raw / "S1/Videos/Photo 1.55011271.mp4").unlink()
    with pytest.raises(InputError, match=r"Photo 1\.55011271\.mp4: the video is missing.*strict"):
        build(settings_for(raw, tmp_path / "out", strict=True))


def test_a_little_damage_is_skipped_and_listed(mpii, raw_writers, tmp_path):
    raw = tmp_path / "raw"
    raw_writers.write_mpii(raw, 121)
    (raw / "images" / "000000007.jpg").unlink()
    shards = build(settings_for(raw, tmp_path / "out"))
    assert shards.manifest.samples == 119
    (skipped,) = shards.manifest.skipped
    assert str(skipped) == "images/000000007.jpg: No such file or directory"


def test_a_list_of_validation_pictures_counts_by_what_it_says(mpii, tmp_path):
    names = sorted(path.name for path in (mpii[0] / "images").iterdir())
    here, there = tmp_path / "here" / "val.txt", tmp_path / "there" / "names.txt"
    for path, lines in ((here, names[:2]), (there, names[1::-1])):
        path.parent.mkdir()
        path.write_text("\n".join(lines))
    with pytest.raises(Unfinished):
        build(settings_for(mpii[0], tmp_path / "set", mpii_val_list=here, share="2/2"))
    first = build(settings_for(mpii[0], tmp_path / "set", mpii_val_list=there, share="1/2"))
    again = build(settings_for(mpii[0], tmp_path / "again", mpii_val_list=here))
    assert first.manifest.set_hash == again.manifest.set_hash
    assert dict(first.manifest.counts["parts"])["val"] == 2
    assert build(settings_for(mpii[0], tmp_path / "set", mpii_val_list=here)).manifest == first.manifest
    here.write_text(names[0])
    with pytest.raises(InputError, match=r"other settings \(mpii_val_list "):
        build(settings_for(mpii[0], tmp_path / "set", mpii_val_list=here))


def test_raw_data_without_any_sample_is_refused(mpii, tmp_path):
    raw = shutil.copytree(mpii[0], tmp_path / "raw")
    shutil.rmtree(raw / "images")
    (raw / "images").mkdir()
    with pytest.raises(InputError, match=r"no usable sample found; the first: images/000000000\.jpg"):
        build(settings_for(raw, tmp_path / "out"))


def test_recordings_of_one_name_are_refused(human36m, tmp_path):
    raw = shutil.copytree(human36m.raw, tmp_path / "raw")
    path = raw / "metadata.xml"
    path.write_text(
        path.read_text().replace("<td>Photo 1</td>", "<td>Walking</td>", 1).replace(">12</td><td>1<", ">2</td><td>1<")
    )
    poses = raw / "S1/MyPoseFeatures/D3_Positions"
    shutil.copy(poses / "Directions.cdf", poses / "Walking.cdf")
    with pytest.raises(InputError, match="both called S1_Directions_1"):
        build(settings_for(raw, tmp_path / "out"))


def test_a_recording_whose_name_cannot_be_a_shards_is_refused(human36m, tmp_path):
    raw = shutil.copytree(human36m.raw, tmp_path / "raw")
    for folder in ("MyPoseFeatures/D3_Positions", "Videos"):
        for path in (raw / "S11" / folder).glob("Walking 1.*"):
            path.rename(path.with_name(path.name.replace("Walking", "Walk.Fast")))
    with pytest.raises(InputError, match=r"'S11_Walk\.Fast_1' cannot be a shard's name; rename"):
        build(settings_for(raw, tmp_path / "out"))


def test_arrays_are_written_without_pickles():
    with pytest.raises(ValueError, match="Object arrays"):
        array_bytes(np.array([object()]))
