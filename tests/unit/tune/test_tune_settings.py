"""Settings of a search: a run's keys, a space, and the files that come with the package."""

from pathlib import Path

import pytest

import configs
from cluster.config import SettingsError, dump, load, parse
from tune.settings import SearchSettings, TuneSettings
from tune.space import read_space

pytestmark = pytest.mark.unit

FILES = sorted((Path(configs.__file__).parent / "tune").glob("*.yaml"))
SPACE = "data: {h36m: x}\nspace: {model.depth: [32, 48], optimizer.lr: {from: 1e-5, to: 1e-3, log: true}}\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_searches_of_the_package_are_read_and_written_back(path, tmp_path):
    settings = load(TuneSettings, path)
    read_space(settings.space)
    copy = tmp_path / "search.yaml"
    copy.write_text(dump(settings))
    assert load(TuneSettings, copy) == settings


def test_a_search_takes_every_key_of_a_run(tmp_path):
    (tmp_path / "s.yaml").write_text(SPACE)
    settings = parse(
        TuneSettings, ["--config", str(tmp_path / "s.yaml"), "--optimizer.clip", "2", "--search.trials", "3"]
    )
    assert settings.optimizer.clip == 2
    assert settings.search.trials == 3
    assert settings.space["model.depth"] == [32, 48]


def test_an_unknown_key_of_the_run_is_named(tmp_path):
    (tmp_path / "s.yaml").write_text(SPACE + "modell: {depth: 3}\n")
    with pytest.raises(SettingsError, match=r"unknown key 'modell\.depth'; the nearest valid key is 'model\.depth'"):
        load(TuneSettings, tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trials": 0}, "trials must be at least 1"),
        ({"metrics": ("a", "b"), "modes": ("min",)}, "modes must be 2"),
        ({"metrics": ("a", "b"), "modes": ("min", "max"), "scheduler": "asha"}, "scheduler must be none"),
        ({"metrics": ()}, "metrics must be one or more"),
        ({"gpus": 1.5}, "gpus must be a whole number or below 1"),
        ({"reduction": 1}, "reduction must be at least 2"),
    ],
)
def test_bad_search_settings_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        SearchSettings(**changes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: {h36m: x}\n", "space must hold at least one setting"),
        ("space: {model.depth: [1]}\n", "data.h36m must be given"),
        (SPACE.replace("h36m: x", "h36m: x, split: trainval"), "without validation subjects, as trainval is"),
        (SPACE + "validate_every: 2\nsearch: {scheduler: pbt, perturb_epochs: 3}\n", "multiple of validate_every = 2"),
    ],
)
def test_searches_that_could_not_run_are_refused(text, words, tmp_path):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SettingsError, match=words):
        load(TuneSettings, tmp_path / "s.yaml")
