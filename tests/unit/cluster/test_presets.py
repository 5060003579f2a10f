"""Augmentation presets as files, several bases, and what a run that pastes objects must name."""

from pathlib import Path

import pytest

from cluster.config import SettingsError, load, parse
from cluster.data import load_bank, open_data
from cluster.settings import Run
from poselib.errors import InputError
from shards.loader_settings import PRESETS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_file_sets_all_of_it_over_any_run(tmp_path, name):
    own = tmp_path / "run.yaml"
    own.write_text(
        "name: x\ndata: {h36m: set}\n"
        "augment: {flip: 0.1, color: 0.7, color_p: 0.3, zoom: 0.6, zoom_p: 0.1, rotation_deg: 3, rotation: 0.1,"
        " occluders: 0.9, occluder_count: [2, 3], occluder_size: [0.1, 0.2]}\n"
    )
    run = parse(Run, ["--config", str(own), "--config", f"augment/{name}.yaml"])
    assert run.augment == PRESETS[name]
    assert run.augment_mpii == PRESETS["none"]
    flipped = parse(Run, ["--config", str(own), "--config", f"augment/{name}.yaml", "--augment.flip", "1"])
    assert (flipped.augment.flip, flipped.augment.zoom) == (1.0, PRESETS[name].zoom)


def test_a_file_may_have_several_bases_of_the_package_and_later_ones_win(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    own = tmp_path / "run.yaml"
    own.write_text("base: [report/baseline.yaml, augment/metrabs.yaml]\nname: mine\naugment: {flip: 0.25}\n")
    run = load(Run, own)
    assert (run.name, run.batch.micro, run.augment.rotation_deg, run.augment.flip) == ("mine", 24, 20.0, 0.25)


def test_a_base_beside_the_file_comes_before_the_packages(tmp_path):
    (tmp_path / "augment").mkdir()
    (tmp_path / "augment" / "sun.yaml").write_text("augment: {flip: 0.125}\n")
    own = tmp_path / "run.yaml"
    own.write_text("base: augment/sun.yaml\nname: x\ndata: {h36m: set}\n")
    assert load(Run, own).augment.flip == 0.125


def test_a_base_that_is_nowhere_is_named(tmp_path):
    own = tmp_path / "run.yaml"
    own.write_text("base: [augment/sun.yaml, augment/sum.yaml]\nname: x\n")
    with pytest.raises(SettingsError, match=r"augment/sum\.yaml.*augment/sun\.yaml"):
        load(Run, own)


def run_of(shard_sets: dict[str, Path], *words: str) -> Run:
    return parse(
        Run,
        [
            *("--name", "x", "--data.h36m", str(shard_sets["h36m"]), "--crop.allow_border", "true"),
            *("--data.train_subjects", "[S1]", "--data.val_subjects", "[S1]", "--data.every_val", "1", *words),
        ],
    )


def test_a_run_that_pastes_objects_needs_a_bank(shard_sets):
    with pytest.raises(InputError, match=r"augment\.occluders.*data\.voc"):
        open_data(run_of(shard_sets, "--augment.occluders", "0.5"))
    people = str(shard_sets["mpii"])
    with pytest.raises(InputError, match=r"holds people; data\.voc needs occluders"):
        open_data(run_of(shard_sets, "--augment.occluders", "0.5", "--data.voc", people))


def test_the_bank_is_one_of_the_sets_that_a_resumed_run_must_find(shard_sets):
    voc = ("--data.voc", str(shard_sets["voc"]))
    run = run_of(shard_sets, "--augment.occluders", "0.5", *voc)
    data = open_data(run)
    assert len(data.shard_sets) == len(set(data.shard_sets)) == 2
    bank = load_bank(run, data)
    assert bank is not None
    assert len(bank.levels) == data.occluders.samples
    unused = run_of(shard_sets, *voc)
    assert len(open_data(unused).shard_sets) == 1
    assert load_bank(unused, open_data(unused)) is None
