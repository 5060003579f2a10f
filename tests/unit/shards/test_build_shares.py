"""A shard set made in shares: by several builders, one after another or at once, some of which are lost."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from poselib.errors import InputError
from shards.build import build, finish, open_shares
from shards.building import FolderBusy, hold_folder, hold_part
from shards.commands import build_shards
from shards.make import Unfinished
from shards.settings import BuildSettings

pytestmark = pytest.mark.unit


def content(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def settings(human36m, tmp_path) -> BuildSettings:
    return BuildSettings(raw=human36m.raw, out=tmp_path / "set", workers=1, stored_px=64)


@pytest.fixture(scope="module")
def reference(human36m, tmp_path_factory):
    """The set as one builder makes it: 5 parts."""
    out = tmp_path_factory.mktemp("reference") / "set"
    build(BuildSettings(raw=human36m.raw, out=out, workers=1, stored_px=64))
    return content(out)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A builder in a process of its own; `share(text)` makes one."""
    head = """
        import sys, time
        from pathlib import Path
        from shards.settings import BuildSettings
        from shards.commands import build_shards
        def share(text):
            raw, out = map(Path, sys.argv[1:3])
            build_shards(BuildSettings(raw=raw, out=out, workers=1, stored_px=64, share=text))
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("shares", [1, 2, 7])
def test_the_set_does_not_depend_on_the_number_of_shares(settings, reference, shares):
    for number in range(shares, 1, -1):
        with pytest.raises(Unfinished, match=f"share {number}/{shares} is made; .* of 5 parts are still missing"):
            build(replace(settings, share=f"{number}/{shares}"))
        assert not (settings.out / "manifest.json").exists()
    build(replace(settings, share=f"1/{shares}"))
    assert content(settings.out) == reference
    build(replace(settings, share=f"1/{shares}"))  # a late one changes nothing
    assert content(settings.out) == reference


def test_a_lost_share_is_named_and_made_alone(settings, reference, capsys):
    for number in (1, 3):
        build_shards(replace(settings, share=f"{number}/3"))
    assert "share 1/3 is made; 3 of 5 parts are still missing" in capsys.readouterr().out
    assert open_shares(settings, 3) == [2]
    with pytest.raises(Unfinished, match=r"2 of 5 parts .*\(S1_Directions_1, S11_Walking_1\); .* --share 2/3"):
        finish(settings, 3)
    stamps = {p: p.stat().st_mtime_ns for p in settings.out.glob("*.tar")}
    assert len(stamps) == 3
    build(replace(settings, share="2/3"))
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert content(settings.out) == reference
    assert open_shares(settings, 3) == []
    assert finish(settings, 3).manifest.samples == 27


def test_builders_at_once_make_each_part_once(human36m, settings, reference):
    """One of two shares runs twice, as after a requeue whose first incarnation lives on."""
    builders = [start(f"share('{share}')", human36m.raw, settings.out) for share in ("1/2", "2/2", "2/2")]
    said = [builder.communicate(timeout=120)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0] * 3, said
    build(replace(settings, share="1/2"))  # finishes only what a race between the last two may have left
    assert content(settings.out) == reference


def test_a_builder_killed_in_the_middle_of_a_part_is_rerun_alone(human36m, settings, reference):
    stuck = """
        import shards.make as make
        true = make.write_part
        def slow(folder, records, name, kind, items):
            def stop():
                yield next(iter(items))
                print("in the middle", flush=True)
                time.sleep(600)
            return true(folder, records, name, kind, stop() if name == "S1_Directions_1" else items)
        make.write_part = slow
        share("2/3")
    """
    killed = start(stuck, human36m.raw, settings.out)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "in the middle\n"
    build_shards(replace(settings, share="1/3"))
    with pytest.raises(Unfinished, match=r"1 parts are being made by others \(S1_Directions_1 by .*process \d+\)"):
        build(replace(settings, share="2/3"))
    with pytest.raises(FolderBusy, match="another build is at work"):
        build(settings)
    torn = list(settings.out.glob(".S1_Directions_1.tar.writing-*"))
    assert len(torn) == 1
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    with pytest.raises(Unfinished, match=r"share 2/3 is made; 1 of 5"):
        build(replace(settings, share="2/3"))
    assert not torn[0].exists()
    build(replace(settings, share="3/3"))
    assert content(settings.out) == reference


def test_what_others_hold_is_left_alone(settings):
    with hold_folder(settings.out, whole=False):
        with hold_part(settings.out, "S1_Directions_1") as first, hold_part(settings.out, "S1_Directions_1") as second:
            assert (first, second) == (True, False)
        with pytest.raises(FolderBusy), hold_folder(settings.out, whole=True):
            pass
        with hold_folder(settings.out, whole=False):
            pass
    with hold_folder(settings.out, whole=True), pytest.raises(FolderBusy), hold_folder(settings.out, whole=False):
        pass


def test_shares_of_other_settings_are_refused(settings):
    with pytest.raises(Unfinished):
        build(replace(settings, share="1/2"))
    with pytest.raises(InputError, match=r"other settings \(quality 90 there, 80 now\)"):
        build(replace(settings, share="2/2", quality=80))
    with pytest.raises(InputError, match="holds no begun build"):
        finish(replace(settings, out=settings.out.with_name("other")), 2)


def test_too_much_damage_stops_whoever_finishes(human36m, settings, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for entry in human36m.raw.iterdir():
        (raw / entry.name).symlink_to(entry)
    (raw / "S1").unlink()
    (raw / "S1" / "Videos").mkdir(parents=True)
    (raw / "S1" / "MyPoseFeatures").symlink_to(human36m.raw / "S1" / "MyPoseFeatures")
    videos = sorted((human36m.raw / "S1" / "Videos").iterdir())
    for video in videos[1:]:
        os.link(video, raw / "S1" / "Videos" / video.name)
    (raw / "S1" / "Videos" / videos[0].name).write_bytes(videos[0].read_bytes()[:100])
    damaged = replace(settings, raw=raw)
    with pytest.raises(Unfinished):
        build(replace(damaged, share="1/2"))
    with pytest.raises(InputError, match="3 of 27 samples are damaged, more than 1%"):
        build(replace(damaged, share="2/2"))
    with pytest.raises(InputError, match="3 of 27 samples are damaged, more than 1%"):
        finish(damaged, 2)
    assert not (settings.out / "manifest.json").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_a_share_that_cannot_be_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="share must be like 3/16"):
        BuildSettings(raw=tmp_path, out=tmp_path, share=text)
