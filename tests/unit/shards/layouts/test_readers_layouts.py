"""The same studio through every layout gives the same people."""

import numpy as np
import pytest

from shards.build import build
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
