"""What is proposed next, with cheap objectives in place of trainings."""

import math

import numpy as np
import pytest

from tune.records import TrialRecord, read_trials
from tune.searcher import SpaceSearcher, population
from tune.settings import SearchSettings
from tune.space import read_space
from tune.trial import ENDED, ray_name

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


def play(folder, settings: SearchSettings, count: int) -> list[TrialRecord]:
    """Propose and score so many trials, as Ray would one after another; every seventh fails."""
    searcher = SpaceSearcher(read_space(SPACE), settings, folder, lambda: False, lambda _: None)
    for _ in range(count):
        number = searcher.next_number
        values = searcher.suggest(f"r{number}")["values"]
        scores = dict(zip(map(ray_name, settings.metrics), objective(values), strict=False))
        result = {f"best_{name}": score for name, score in scores.items()} | {"epochs": 1, ENDED: True}
        searcher.on_trial_result(f"r{number}", result)
        searcher.on_trial_complete(f"r{number}", result, error=number % 7 == 6)
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
    assert all(record.reason for record in records if record.status == "failed")
    assert all(math.isfinite(record.scores[METRICS[0]]) for record in records if record.status == "finished")
