"""Protocol presets, and which score cards may stand side by side."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.protocol import (
    PRESETS,
    by_preset,
    check_comparable,
    check_frames,
    differences,
    other_training,
    read_card,
    selected_on,
)
from cluster.scorecard import FIGURES
from cluster.settings import Run
from cluster.settings_commands import EvaluateSettings
from cluster.settings_data import DataSettings
from poselib.errors import InputError

pytestmark = pytest.mark.unit

CARD = {"synthetic": False, "subjects": ["S9", "S11"], "every": 64, "flip test": False, "crop": "256x256"}


def run(**data) -> Run:
    return Run(name="x", data=DataSettings(h36m="set", every_test=7, every_val=7, **data))


def asked(protocol: str, part: str = "test") -> EvaluateSettings:
    return EvaluateSettings(Path("x"), protocol=protocol, part=part)


@pytest.mark.parametrize(
    ("protocol", "split", "part", "subjects", "every"),
    [
        ("eth", "eth", "test", ("S9", "S11"), 1),
        ("eth", "eth", "val", ("S8",), 1),
        ("eth", "trainval", "test", ("S9", "S11"), 1),
        ("protocol1", "protocol1", "test", ("S11",), 64),
        ("protocol1", "eth", "test", ("S11",), 64),
        ("protocol2", "protocol2", "test", ("S9", "S11"), 64),
        ("run", "eth", "test", ("S9", "S11"), 7),
    ],
)
def test_a_preset_says_whom_and_which_frames(protocol, split, part, subjects, every):
    data = by_preset(run(split=split), asked(protocol, part)).data
    assert data.subjects(part) == subjects
    assert getattr(data, f"every_{part}") == every


@pytest.mark.parametrize(
    ("protocol", "part", "data", "said"),
    [
        (
            "protocol2",
            "test",
            {"split": "protocol1"},
            "trained or selected on S9; train one with --data.split protocol2",
        ),
        ("eth", "val", {"split": "trainval"}, "trained or selected on S8"),
        ("eth", "test", {"val_subjects": ("S11",), "test_subjects": ("S9",)}, "trained or selected on S11"),
        ("protocol1", "val", {}, "has no part val, only test"),
        ("eth", "val", {"val_subjects": ("S6",), "test_subjects": ("S8",)}, "must neither train nor select"),
    ],
)
def test_people_who_were_learned_from_are_not_scored(protocol, part, data, said):
    with pytest.raises(InputError, match=said):
        by_preset(run(**data), asked(protocol, part))


def source(**built):
    return SimpleNamespace(shards=SimpleNamespace(folder="set", manifest=SimpleNamespace(settings=built)))


@pytest.mark.parametrize("built", [{"every": 5, "every_test": 64}, {"every": 2, "every_test": 0}, {"every": 1}, {}])
def test_a_set_that_holds_the_frames_of_a_protocol(built):
    check_frames(asked("protocol1"), source(**built))


@pytest.mark.parametrize("built", [{"every": 5, "every_test": 50}, {"every": 5, "every_test": 0}, {"every": 128}])
def test_a_set_that_holds_some_of_the_frames_is_refused(built):
    check_frames(asked("eth"), source(**built))
    check_frames(asked("run"), source(**built))
    with pytest.raises(
        InputError, match=r"one frame in 64, but set holds one in \d+.* only; build a set with --every_test 64"
    ):
        check_frames(asked("protocol2"), source(**built))


def test_a_card_tells_what_the_weights_were_chosen_by():
    best, never = SimpleNamespace(val_mpjpe_mm=50.0), SimpleNamespace(val_mpjpe_mm=math.nan)
    last = EvaluateSettings(Path("x"), weights="last")
    assert selected_on(run(), asked("run"), best) == "MPJPE, mean of all poses of S8, one frame in 7"
    for told in ((run(), asked("run"), never), (run(split="trainval"), asked("run"), best), (run(), last, best)):
        assert selected_on(*told) == "nothing, the last epoch"


def test_another_training_is_told():
    assert "trained on S1 S5 S6 S7, protocol2 on S1 S5 S6 S7 S8" in other_training(run(), asked("protocol2"))
    assert not other_training(run(split="trainval"), asked("protocol2"))
    assert not other_training(run(split="trainval"), asked("eth"))
    assert not other_training(run(train_subjects=("S1",)), asked("run"))


def test_every_preset_has_a_figure_to_speak_of():
    assert {preset.headline for preset in PRESETS.values()} <= FIGURES.keys()


def test_cards_differ_in_what_was_measured_not_in_the_model():
    assert differences(CARD, CARD | {"crop": "288x384", "model": "last, step 9"}) == []
    other = CARD | {"subjects": ["S11"], "flip test": True}
    assert differences(CARD, other) == ["subjects: S9 S11 / S11", "flip test: False / True"]
    check_comparable(CARD, CARD, Path("a"))
    with pytest.raises(InputError, match=r"a was scored by another protocol \(subjects.*--across_protocols true"):
        check_comparable(CARD, other, Path("a"))


@pytest.mark.parametrize("content", [None, "{", "[]", '{"protocol": {}}', '{"protocol": 1, "mpjpe_mm": 2.0}'])
def test_what_is_no_card_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "score_flip.json").write_text(content)
    with pytest.raises(InputError, match=r"score_flip\.json (is no score card|does not exist); `pose eval RUN` writes"):
        read_card(tmp_path, "score_flip")


def test_a_card_is_found_by_run_or_by_file(tmp_path):
    (tmp_path / "score.json").write_text(json.dumps({"protocol": CARD, "mpjpe_mm": 50.0}))
    assert read_card(tmp_path) == read_card(tmp_path / "score.json", "score_flip")
