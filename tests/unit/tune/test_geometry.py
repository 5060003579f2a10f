"""The crops of a space: the one that looks furthest is found, wherever it stands."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cluster.config import parse
from cluster.settings import DataSettings, Run
from poselib.errors import InputError
from shards.augment import needed_cover
from shards.manifest import MANIFEST
from tune.geometry import every_crop
from tune.preflight import check_space
from tune.settings import TuneSettings
from tune.space import read_space

pytestmark = pytest.mark.unit

ZOOMS = [0.01 * n for n in range(8)]
TURNS = [round(0.2 * n, 1) for n in range(6)]
SPACE = {
    "augment.zoom": ZOOMS,
    "augment.rotation_deg": TURNS,
    "model.crop_width, model.crop_height": [[64, 64], [96, 96], [128, 128], [160, 160], [192, 192]],
    "optimizer.lr": {"from": 1e-4, "to": 1e-3},
}


def settings(shards, tmp_path, space, **crop) -> TuneSettings:
    path = tmp_path / "s.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "corners",
                "epochs": 1,
                "data": {"h36m": str(shards), "every_train": 1, "every_val": 1, "train_subjects": ["S1"]}
                | {"val_subjects": ["S1"], "test_subjects": ["S9"]},
                "model": {"backbone": "resnet10", "width": 8, "depth": 8, "crop_width": 64, "crop_height": 64},
                "batch": {"micro": 4},
                "engine": {"ranks": 1, "device": "cpu"},
                "augment": {"rotation": 1.0},
                "crop": crop,
                "space": space,
            }
        )
    )
    return parse(TuneSettings, ["--config", str(path)])


def test_every_combination_of_crops_is_there_once():
    run = Run(name="r", data=DataSettings(h36m="x"))
    found = [(one.augment.zoom, one.augment.rotation_deg, one.model.crop_width) for _, one in every_crop(run, SPACED)]
    assert len(found) == len(set(found)) == 8 * 6 * 5
    assert {one.optimizer for _, one in every_crop(run, SPACED)} == {run.optimizer}


def test_what_no_run_can_have_is_left_out():
    run = Run(name="r", data=DataSettings(h36m="x"))
    space = read_space({"augment.zoom": [0.1, 1.5], "augment_mpii.rotation": {"from": 0.0, "to": 1.0}})
    assert [(one.augment.zoom, one.augment_mpii.rotation) for _, one in every_crop(run, space)] == [
        (0.1, 0.0),
        (0.1, 1.0),
    ]


@pytest.mark.parametrize("branch", [False, True])
def test_the_one_corner_that_looks_beyond_the_stored_pictures_is_found(branch, shard_sets, tmp_path, monkeypatch):
    monkeypatch.setattr("tune.preflight.MOST_CHECKED", 4)  # of the sample that is tried anyway
    shards = covering(1.4, shard_sets["h36m"], tmp_path / "shards")
    run = settings(shards, tmp_path, SPACE)
    # The last zoom and turn alone pass what is stored, in crops of any size.
    zooms, turns = [stored_zoom(run, 1.4, turn=TURNS[-2]) - 0.01 * n for n in range(8)][::-1], TURNS
    space = SPACE | {"augment.zoom": zooms}
    if branch:
        kinds = [[0.0, 0.1], [0.2, 0.3], [0.4, 0.5]]
        space["loss.heatmap"] = [value for pair in kinds for value in pair]
        turned = {f"{value}": [turn] for value, turn in zip(space["loss.heatmap"], turns, strict=True)}
        space["augment.rotation_deg"] = {"by": "loss.heatmap", "is": turned}
    wanted = settings(shards, tmp_path, space)
    with pytest.raises(
        InputError, match=rf"^space: with .*augment\.zoom {zooms[-1]}.*look beyond the stored"
    ) as caught:
        check_space(wanted, read_space(wanted.space))
    assert f"augment.rotation_deg {TURNS[-1]}" in str(caught.value)
    accepted = settings(shards, tmp_path, space, allow_border=True)
    assert check_space(accepted, read_space(accepted.space)) > 0


def covering(boxes: float, shards: Path, copy: Path) -> Path:
    """A copy of a shard set that says it covers so many boxes."""
    shutil.copytree(shards, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps(manifest | {"cover_width": boxes, "cover_height": boxes}))
    return copy


def stored_zoom(run: Run, cover: float, turn: float) -> float:
    """The largest zoom with which crops that turn so far still lie in the stored pictures."""
    still = replace(run.augment, zoom=0.0, rotation_deg=turn)
    return 1 - needed_cover(still, run.crop, run.model)[0] / cover


SPACED = read_space(SPACE)
