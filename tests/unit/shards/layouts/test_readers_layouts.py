"""The same studio through every layout gives the same people, and each leads back to its raw annotation."""

import numpy as np
import pytest

from poselib.camera import apply_affine, back_project, project
from shards.build import build
from shards.manifest import ShardSet
from shards.readers import READERS, find_reader
from shards.records import Skipped
from shards.settings import BuildSettings

pytestmark = pytest.mark.unit

HUMAN36M = ("h36m", "h36m_mks0601", "h36m_eth", "h36m_kf")


def settings_for(raw, out, **changes) -> BuildSettings:
    return BuildSettings(raw=raw, out=out, **({"workers": 1, "stored_px": 64, "every": 1} | changes))


def read_all(settings) -> list:
    _, reader = find_reader(settings)
    return [item for part in reader.parts(settings) for item in reader.read(settings, part)]


def people_of(settings) -> dict:
    items = read_all(settings)
    assert not [item for item in items if isinstance(item, Skipped)]
    return {person.key: person for person in items}


@pytest.mark.parametrize("layout", [name for name in READERS if name != "voc"])
def test_a_layout_is_found_by_looking_and_can_be_named(layouts, tmp_path, layout):
    assert find_reader(settings_for(layouts[layout], tmp_path))[0] == layout
    assert find_reader(settings_for(layouts[layout], tmp_path, layout=layout))[0] == layout
    source = READERS[layout].source
    assert find_reader(settings_for(layouts[layout], tmp_path, source=source))[0] == layout


@pytest.mark.parametrize(
    ("layout", "lens"),
    [*((name, "pinhole") for name in HUMAN36M), ("h36m", "brown"), ("h36m_kf", "brown"), ("h36m_kf", "undistorted")],
)
@pytest.mark.parametrize("box", ["root2000", "tight"])
def test_stored_joints_lead_back_to_the_raw_annotation(layouts, truth, tmp_path, layout, lens, box):
    shards = build(settings_for(layouts[layout], tmp_path / "out", lens=lens, box=box, cover_width=1.2))
    assert shards.manifest.samples == len(truth.frames)
    assert (shards.manifest.source, shards.manifest.settings["layout"]) == ("h36m", layout)
    frames = {frame.key: frame for frame in truth.frames}
    for row in range(len(shards)):
        check_sample(shards, row, frames, truth, lens)


def check_sample(shards: ShardSet, row: int, frames: dict, truth, lens: str) -> None:
    sample = shards.read(row)
    frame, arrays = frames[sample.key], {name: value.astype(float) for name, value in sample.arrays.items()}
    camera, true_mm = truth.camera(frame), truth.in_camera(frame)
    np.testing.assert_allclose(arrays["joints_mm"], true_mm, atol=0.1)
    in_frame = apply_affine(arrays["frame_from_stored"], arrays["joints_px"])
    distortion = camera.distortion if lens == "brown" else None
    np.testing.assert_allclose(in_frame, project(true_mm, camera.intrinsics, distortion), atol=0.5)
    own_lens = arrays["distortion"] if lens == "brown" else None
    back = back_project(arrays["joints_px"], arrays["joints_mm"][:, 2], arrays["intrinsics"], own_lens)
    np.testing.assert_allclose(back, true_mm, atol=0.1)


def test_every_layout_gives_the_same_people(layouts, tmp_path):
    official = people_of(settings_for(layouts["h36m"], tmp_path))
    for layout in HUMAN36M[1:]:
        people = people_of(settings_for(layouts[layout], tmp_path))
        assert people.keys() == official.keys()
        for key, person in people.items():
            same = official[key]
            np.testing.assert_allclose(person.joints_mm, same.joints_mm, atol=0.01)
            np.testing.assert_allclose(person.joints_px, same.joints_px, atol=0.01)
            np.testing.assert_allclose(person.box, same.box, atol=0.01)
            assert np.abs(person.picture.astype(int) - same.picture).mean() < 4
            names = ("subject", "action", "subaction", "camera", "frame")
            assert [getattr(person.names, n) for n in names] == [getattr(same.names, n) for n in names]


def test_both_layouts_of_mpii_give_the_same_people(layouts, tmp_path):
    official, other = (people_of(settings_for(layouts[name], tmp_path)) for name in ("mpii", "mpii_hrnet"))
    assert other.keys() == official.keys()
    for key, person in other.items():
        for name in ("joints_px", "supervised_px", "box", "picture"):
            np.testing.assert_allclose(getattr(person, name), getattr(official[key], name), atol=1e-6)
        assert person.names.part == ("val" if (int(key.split("_")[1]) - 1) % 4 == 0 else "train")
    shards = build(settings_for(layouts["mpii_hrnet"], tmp_path / "out"))
    assert shards.manifest.source == "mpii"
    assert "train.json and valid.json" in shards.manifest.split


@pytest.mark.parametrize("layout", HUMAN36M)
def test_frames_and_subjects_are_picked_alike(layouts, tmp_path, layout):
    settings = settings_for(layouts[layout], tmp_path, every=2, every_test=3, subjects=("S9",))
    people = people_of(settings)
    assert {person.names.frame for person in people.values()} == {0, 2, 3}
    assert {person.names.subject for person in people.values()} == {"S9"}
