"""Which pictures of MPII validate: a named list; stamped, and refused where it does not fit."""

import json

import pytest

from poselib.errors import InputError
from shards.build import build
from shards.settings import BuildSettings

pytestmark = pytest.mark.unit


def settings_for(raw, out, **changes) -> BuildSettings:
    return BuildSettings(raw=raw, out=out, workers=1, stored_px=64, **changes)


@pytest.mark.parametrize("kind", ["txt", "json"])
def test_the_named_list_parts_the_pictures_and_is_stamped(mpii, tmp_path, kind):
    names = ["000000003.jpg", "000000005.jpg"]
    path = tmp_path / f"val.{kind}"
    path.write_text("\n".join(names) if kind == "txt" else json.dumps([{"image": name} for name in names]))
    shards = build(settings_for(mpii[0], tmp_path / "out", mpii_val_list=path))
    assert shards.manifest.counts["parts"] == {"train": 6, "val": 2}
    assert shards.manifest.split.startswith(f"validation: the 2 pictures that val.{kind} names, SHA-256 ")
    assert shards.manifest.settings["mpii_val_list"].startswith(shards.manifest.split[-12:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"val\.json, the list of validation pictures, cannot be read \(No such file"),
        ("[]", "names none; it must be a text file"),
        ('{"a": 1}', "must be a text file of picture names, one a line, or a JSON list"),
        ('[{"image": "other.jpg"}]', "1 of 1 validation pictures are no training pictures of this set.*other"),
    ],
)
def test_a_list_that_does_not_fit_is_one_line(mpii, tmp_path, text, message):
    path = tmp_path / "val.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        build(settings_for(mpii[0], tmp_path / "out", mpii_val_list=path))
