"""The search space: YAML to dimensions, draws, and what is refused."""

import pytest

from cluster.config import SettingsError
from tune.space import Choice, Range, list_domain, read_space

pytestmark = pytest.mark.unit

CONDITIONAL = {
    "model.depth": {"by": "model.crop_height", "is": {"256": [48, 64], "384": [72]}},
    "model.crop_width, model.crop_height": [[256, 256], [288, 384]],
    "model.ppm_bins": [[1, 2, 3, 6], None],
}


def test_a_depth_follows_the_crop_wherever_it_stands():
    space = read_space(CONDITIONAL)
    found = [
        (v["model.crop_width"], v["model.crop_height"], v["model.depth"], v["model.ppm_bins"]) for v in space.all()
    ]
    bins = ([1, 2, 3, 6], None)
    wanted = [(*crop, depth, b) for *crop, depth in ((256, 256, 48), (256, 256, 64), (288, 384, 72)) for b in bins]
    assert sorted(found, key=str) == sorted(wanted, key=str)


def test_a_draw_asks_once_per_dimension_and_tells_branches_apart():
    asked = {}

    def last(name, domain):
        asked[name] = domain
        return list_domain(domain)[-1]

    values = read_space(CONDITIONAL).draw(last)
    assert values == {"model.crop_width": 288, "model.crop_height": 384, "model.depth": 72, "model.ppm_bins": None}
    assert asked["model.depth where model.crop_height is 384"] == Choice((72,))
    assert len(asked) == 3


def test_diagonals_hold_every_value_of_every_free_list():
    space = read_space({"model.depth": [32, 48, 64], "optimizer.lr": {"from": "1e-5", "to": 1e-3, "log": True}})
    found = list(space.diagonals())
    assert {v["model.depth"] for v in found} == {32, 48, 64}
    assert {v["optimizer.lr"] for v in found} == {1e-5, 1e-3}


def test_ranges_know_whole_numbers_and_steps():
    (micro, zoom) = (
        d.domain
        for d in read_space(
            {"batch.micro": {"from": 8, "to": 32, "step": 8}, "augment.zoom": {"from": 0.0, "to": 0.3, "step": 0.1}}
        ).dimensions
    )
    assert micro.listed() == [8, 16, 24, 32]
    assert micro.clip(27.9) == 24
    assert isinstance(micro.clip(50.0), int)
    assert zoom.listed() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert Range(1e-5, 1e-3, log=True).clip(1.0) == 1e-3


def test_a_branch_is_known_by_the_value_that_its_key_means():
    for keys in (("1e-4", "0.001"), (1e-4, "1e-3")):
        space = read_space(
            {
                "optimizer.lr": ["1e-4", "1e-3"],
                "batch.micro": {"by": "optimizer.lr", "is": dict(zip(keys, ([8], [16]), strict=True))},
            }
        )
        assert [(v["optimizer.lr"], v["batch.micro"]) for v in space.all()] == [(1e-4, 8), (1e-3, 16)]


def test_a_part_keeps_what_it_depends_on():
    space = read_space(
        {
            "augment.zoom": {"by": "augment.rotation_deg", "is": {"0.0": [0.1], "30.0": [0.2]}},
            "augment.rotation_deg": {"by": "loss.heatmap", "is": {"0.0": [0.0], "1.0": [30.0]}},
            "loss.heatmap": [0.0, 1.0],
            "optimizer.lr": [1e-3, 1e-4],
        }
    )
    part = space.part(("augment.zoom",))
    assert [one.keys[0] for one in part.dimensions] == ["loss.heatmap", "augment.rotation_deg", "augment.zoom"]
    assert [v["augment.zoom"] for v in part.all()] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "space: is empty"),
        ({"optimizer.rate": [1]}, "unknown key 'optimizer.rate'; the nearest setting of a run is 'optimizer."),
        ({"model": [1]}, "unknown key 'model'"),
        ({"runs_dir": ["a", "b"]}, "runs_dir cannot be searched"),
        ({"tracking.uri": ["a"]}, "tracking.uri cannot be searched"),
        ({"model.depth": []}, "model.depth: an empty list"),
        ({"model.depth": 64}, "expected a list of values or `from:` and `to:`, found 64"),
        ({"model.depth": [64, 64]}, "stands there twice"),
        ({"model.depth, model.depth": [[1, 2]]}, "model.depth stands there twice"),
        ({"model.crop_width, model.crop_height": [256]}, "expected lists of 2 values"),
        ({"optimizer.lr": {"from": 1e-3, "to": 1e-4}}, "is empty; `to` must be larger"),
        ({"optimizer.lr": {"from": 0.0, "to": 1e-4, "log": True}}, "log needs `from` above 0"),
        ({"optimizer.lr": {"low": 0.0, "to": 1e-4}}, "expected a list of values, or from, to"),
        ({"optimizer.lr": {"from": "a", "to": 1}}, "must be numbers"),
        ({"optimizer.lr": {"from": 0, "to": float("nan")}}, "must be numbers"),
        ({"batch.micro": {"from": 8, "to": 16, "step": 9}}, "step must lie in 0..8"),
        (
            {"model.depth": {"by": "model.width", "is": {"64": [1]}}},
            "depends on model.width, which is not in the space",
        ),
        ({"model.width": [32, 64], "model.depth": {"by": "model.width", "is": {"64": [1]}}}, "but it may be 32, 64"),
        (
            {"augment.zoom": {"from": 0.0, "to": 0.3}, "model.depth": {"by": "augment.zoom", "is": {"0.0": [1]}}},
            "must be a list of values",
        ),
        (
            {
                "model.depth": {"by": "model.width", "is": {"64": [1]}},
                "model.width": {"by": "model.depth", "is": {"1": [64]}},
            },
            "depend on each other in a circle",
        ),
        ({"model.depth": {"by": "model.width"}}, "expected `by:` another setting"),
        (
            {"optimizer.lr": [1e-4], "model.depth": {"by": "optimizer.lr", "is": {"1e-4": [8], "0.0001": [9]}}},
            "holds a value twice",
        ),
    ],
)
def test_bad_spaces_are_refused_in_one_line(space, words):
    with pytest.raises(SettingsError, match=r"^space: ") as caught:
        read_space(space)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
