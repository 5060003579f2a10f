"""Going on with a search: under which limits, and how long it took before."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.config import SettingsError, dump, parse
from poselib.errors import InputError
from tune.earlier import hours_spent, load_search, refuse_existing, resumed_settings
from tune.settings import SearchSettings, TuneSettings

pytestmark = pytest.mark.unit


@pytest.fixture
def runs(tmp_path):
    """A search of 64 trials with 4 cores each."""
    (tmp_path / "s.yaml").write_text("data: {h36m: x}\nspace: {model.depth: [32, 48]}\nsearch: {trials: 64, cpus: 4}\n")
    folder = tmp_path / "runs" / "s"
    folder.mkdir(parents=True)
    (folder / "search.yaml").write_text(dump(parse(TuneSettings, ["--config", str(tmp_path / "s.yaml"), "--name=s"])))
    return tmp_path / "runs"


def test_a_limit_may_be_set_back_to_its_default(runs):
    given = parse(TuneSettings, ["--resume", "s", "--runs_dir", str(runs), "--search.cpus", "1"])
    search = resumed_settings(given).search
    assert (search.cpus, search.trials, SearchSettings().cpus) == (1, 64, 1)


def test_what_was_given_outlives_a_file(runs, tmp_path):
    given = parse(TuneSettings, ["--resume", "s", f"--runs_dir={runs}", "--search.trials", "16"])
    (tmp_path / "job.yaml").write_text(dump(given))
    search = resumed_settings(parse(TuneSettings, ["--config", str(tmp_path / "job.yaml")])).search
    assert (search.cpus, search.trials) == (4, 16)


def test_anything_else_than_a_limit_is_refused_at_its_default_too(runs):
    given = parse(TuneSettings, ["--resume", "s", "--runs_dir", str(runs), "--epochs", "70"])
    with pytest.raises(InputError, match="was started with, not epochs"):
        resumed_settings(given)


def test_a_group_as_a_whole_is_refused_as_it_does_not_tell_what_was_given(runs):
    with pytest.raises(SettingsError, match="search must be given key by key beside --resume"):
        parse(TuneSettings, ["--resume", "s", "--runs_dir", str(runs), "--search", "{trials: 16}"])


def test_what_to_go_on_with_is_told_with_its_folder(runs):
    settings = load_search(runs, "s")
    with pytest.raises(InputError, match=f"`pose tune --resume s --runs_dir {runs}`"):
        refuse_existing(settings, runs / "s")
    assert replace(settings, runs_dir=Path("runs")).elsewhere == ""


def test_hours_of_all_starts_are_summed_without_those_between(tmp_path):
    assert hours_spent(tmp_path) == 0
    status = [("running", 0), ("stopped", 3600), ("running", 90_000), ("running", 200_000)]
    lines = [{"kind": "status", "value": value, "time": time} for value, time in status]
    lines.insert(3, {"kind": "metrics", "step": 1, "time": 93_600, "values": {}})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert hours_spent(tmp_path) == pytest.approx(2)
