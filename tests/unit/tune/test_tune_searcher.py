"""What is proposed next, with cheap objectives in place of trainings."""

import math

import numpy as np
import pytest
from ray.tune.search import Searcher

from tune.reasons import note_failure
from tune.records import TrialRecord, read_trials
from tune.searcher import SpaceSearcher, population
from tune.settings import SearchSettings
from tune.space import read_space
from tune.trial import ENDED, ray_name
from tune.tried import combinations

pytestmark = pytest.mark.unit

SPACE = {
    "augment.color": {"from": 0.0, "to": 1.0},
    "augment.occluders": {"from": 0.0, "to": 1.0},
    "model.crop_height": [192, 256],
    "model.depth": {"by": "model.crop_height", "is": {"192": [32, 48], "256": [64]}},
}
METRICS = ("val/mpjpe_mm", "train/images_per_s")


def objective(values: dict) -> tuple[float, float]:
    """An error and a speed at odds over the colour; occluders make both worse."""
    colour, occluders = values["augment.color"], values["augment.occluders"]
    return 50 + 20 * colour**2 + 30 * occluders, 1000 - 400 * (1 - colour) ** 2 - 500 * occluders


def start(folder, settings: SearchSettings, space: dict = SPACE) -> SpaceSearcher:
    return SpaceSearcher(read_space(space), settings, folder, lambda: False, lambda _: None)


def scored(settings: SearchSettings, scores: tuple[float, ...], **more) -> dict:
    """A last result, as Ray hands it on."""
    best = {f"best_{ray_name(name)}": score for name, score in zip(settings.metrics, scores, strict=False)}
    return best | {"epochs": 1, ENDED: True} | more


def play(folder, settings: SearchSettings, count: int, space: dict = SPACE, score=objective) -> list[TrialRecord]:
    """Propose and score up to so many trials, as Ray would one after another; every seventh fails."""
    searcher = start(folder, settings, space)
    for _ in range(count):
        number = searcher.next_number
        proposed = searcher.suggest(f"r{number}")
        if proposed == Searcher.FINISHED:
            break
        result = scored(settings, score(proposed["values"]))
        searcher.on_trial_result(f"r{number}", result)
        if failed := number % 7 == 6:
            note_failure(folder / f"t{number:04}", "out of memory")
        searcher.on_trial_complete(f"r{number}", result, error=failed)
    return read_trials(folder)


@pytest.mark.parametrize("parts", [(120,), (60, 60)], ids=["at once", "resumed"])
def test_nsga2_comes_to_the_front_of_two_objectives(parts, tmp_path):
    settings = SearchSettings(searcher="nsga2", metrics=METRICS, modes=("min", "max"), trials=120)
    for count in parts:
        records = play(tmp_path, settings, count)
    occluders = [record.values["augment.occluders"] for record in records]
    assert np.mean(occluders[-30:]) < 0.6 * np.mean(occluders[: population(120)])
    colours = [record.values["augment.color"] for record in records[-30:]]
    assert max(colours) - min(colours) > 0.3, "a front, not a point"
    assert {record.values["model.depth"] for record in records if record.values["model.crop_height"] == 256} == {64}


def test_tpe_of_one_objective_is_better_than_chance(tmp_path):
    means = {}
    for searcher in ("tpe", "random"):
        (tmp_path / searcher).mkdir()
        records = play(tmp_path / searcher, SearchSettings(searcher=searcher, trials=40), 40)
        means[searcher] = np.mean([objective(record.values)[0] for record in records[-15:]])
    assert means["tpe"] < means["random"] - 5


def test_failed_trials_are_kept_with_their_reason_and_the_rest_goes_on(tmp_path):
    records = play(tmp_path, SearchSettings(searcher="tpe", trials=14), 14)
    assert [record.number for record in records if record.status == "failed"] == [6, 13]
    assert {record.reason for record in records if record.status == "failed"} == {"out of memory"}
    assert all(math.isfinite(record.scores[METRICS[0]]) for record in records if record.status == "finished")


@pytest.mark.parametrize("searcher", ["random", "tpe", "nsga2", "grid"])
def test_nothing_is_tried_twice_and_a_finite_space_comes_to_an_end(searcher, tmp_path):
    space = {
        "model.head": ["integral", "regression"],
        "batch.micro": {"from": 1, "to": 3} | ({"step": 1} if searcher == "grid" else {}),
        "model.depth": {"by": "model.head", "is": {"integral": [32, 48], "regression": [64]}},
    }
    several = METRICS if searcher == "nsga2" else METRICS[:1]
    settings = SearchSettings(searcher=searcher, metrics=several, modes=("min", "max")[: len(several)], trials=40)

    def score(values: dict) -> tuple[float, float]:
        return values["batch.micro"], 1 / values["model.depth"]

    for count in (4, 40):
        records = play(tmp_path, settings, count, space, score)
    assert len(records) == combinations(read_space(space)) == 9
    assert len({str(sorted(record.values.items())) for record in records}) == 9


def test_a_space_without_end_has_no_count():
    assert combinations(read_space(SPACE)) == 0
    assert combinations(read_space({"model.depth": [32, 48], "batch.micro": {"from": 8, "to": 32, "step": 8}})) == 8


def test_a_population_may_begin_alike(tmp_path):
    settings = SearchSettings(searcher="random", scheduler="pbt", trials=6)
    assert len(play(tmp_path, settings, 6, {"loss.heatmap": [0.0, 1.0]}, lambda values: (1.0,))) == 6


def test_changed_settings_are_noted_before_a_result_and_scores_keep_theirs(tmp_path):
    settings, space = (
        SearchSettings(searcher="random", scheduler="pbt", trials=2),
        {"loss.heatmap": {"from": 0.0, "to": 1.0}},
    )
    searcher = start(tmp_path, settings, space)
    first = searcher.suggest("r0")["values"]["loss.heatmap"]
    searcher.on_start("r0", {"loss.heatmap": first})
    searcher.on_trial_result("r0", scored(settings, (40.0,), **{"best_values/loss.heatmap": first, ENDED: False}))
    searcher.on_start("r0", {"loss.heatmap": 0.25})
    (noted,) = read_trials(tmp_path)
    assert (noted.values, noted.scored_values) == ({"loss.heatmap": 0.25}, {"loss.heatmap": first})
    searcher.on_trial_complete("r0", scored(settings, (30.0,), **{"best_values/loss.heatmap": 0.5}))
    (ended,) = read_trials(tmp_path)
    assert (ended.status, ended.scores[METRICS[0]], ended.scored_values) == ("finished", 30.0, {"loss.heatmap": 0.5})
    assert start(tmp_path, settings, space).suggest("r1")["values"] != ended.values


def test_a_trial_that_was_lost_goes_on_when_the_search_is_resumed(tmp_path):
    settings = SearchSettings(searcher="random", trials=2)
    searcher = start(tmp_path, settings)
    values = searcher.suggest("r0")["values"]
    searcher.on_trial_result("r0", scored(settings, (40.0,), **{ENDED: False}))
    searcher.on_trial_complete("r0", error=True)
    searcher.on_lost("r0", "The node died.")
    (lost,) = read_trials(tmp_path)
    assert (lost.status, lost.reason, lost.scores) == ("waiting", "The node died.", {METRICS[0]: 40.0})
    assert start(tmp_path, settings).suggest("r1")["values"] == values
    assert read_trials(tmp_path)[0].reason == ""
