"""What `pose tune` refuses before anything starts."""

import pytest
import yaml

import pose

pytestmark = pytest.mark.integration

SETTINGS = {
    "epochs": 1,
    "data": {
        "every_train": 1,
        "every_val": 1,
        "train_subjects": ["S1"],
        "val_subjects": ["S1"],
        "test_subjects": ["S9"],
    },
    "model": {"backbone": "resnet10", "width": 8, "crop_width": 64, "crop_height": 64, "depth": 8, "ppm_bins": [1, 2]},
    "batch": {"micro": 8},
    "engine": {"ranks": 1, "device": "cpu"},
}


@pytest.mark.parametrize(
    ("space", "more", "words", "code"),
    [
        ({"model.dept": [8]}, {}, "space: unknown key 'model.dept'; the nearest setting of a run is 'model.depth'", 2),
        ({"model.depth": [8, 0]}, {}, "space: with model.depth 0: model.depth must be at least 1, not 0", 2),
        ({"model.depth": [8, "deep"]}, {}, "model.depth: Expected", 2),
        ({"model.crop_height": [64, 96]}, {}, "space: with model.crop_height 96: ", 1),
        ({"augment.occluders": [0.0, 0.5]}, {}, "space: with augment.occluders 0.5: augment.occluders pastes", 1),
        ({"optimizer.lr": {"from": 1e-4, "to": 1e-3}}, {"searcher": "grid"}, "a grid needs a list of values", 2),
        ({"model.depth": [8, 16]}, {"scheduler": "pbt"}, "search.scheduler pbt changes trials on their way", 2),
        ({"crop.aspect": [1.0, 1.2]}, {"scheduler": "pbt"}, "search.scheduler pbt changes trials on their way", 2),
        ({"model.depth": [8]}, {"metrics": ["val/mpjpe"]}, "no training logs 'val/mpjpe'; the nearest", 2),
        ({"epochs": [1, 2]}, {}, "space: epochs cannot be searched: trials are compared by epochs", 2),
        (
            {"model.head": ["integral", "regression"], "loss.heatmap": [0.0, 1.0]},
            {},
            "space: with model.head regression, loss.heatmap 1.0: heatmap must be 0 for the regression head",
            2,
        ),
    ],
)
def test_a_space_in_which_a_trial_could_not_start(space, more, words, code, shard_sets, tmp_path, capsys):
    settings = SETTINGS | {"data": SETTINGS["data"] | {"h36m": str(shard_sets["h36m"])}}
    config = tmp_path / "bad.yaml"
    config.write_text(yaml.safe_dump(settings | {"name": "bad", "space": space, "search": more}, sort_keys=False))
    assert pose.main(["tune", "--config", str(config), "--runs_dir", str(tmp_path / "runs")]) == code
    shown = capsys.readouterr().err
    assert words in shown
    assert len(shown.strip().splitlines()) == 1
    assert not (tmp_path / "runs" / "bad").exists()


def test_a_search_that_is_not_there(tmp_path, capsys):
    assert pose.main(["tune", "--resume", "gone", "--runs_dir", str(tmp_path)]) == 1
    assert "gone is no search" in capsys.readouterr().err
    assert pose.main(["tune", "best", "gone", "--runs_dir", str(tmp_path)]) == 1
    assert "gone is no search" in capsys.readouterr().err
