"""What the bench says of its figures."""

from dataclasses import asdict
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from cluster.bench.ratio import over_rounds
from cluster.bench.settings import BenchSettings
from cluster.bench.tables import show_forms, show_scaling, step_cost
from cluster.config import parse

pytestmark = pytest.mark.unit


def row(**more: Any) -> dict[str, Any]:
    own = {"ms": 100.0, "img_per_s": 80.0, "spread": 0.01, "bytes": 2**20, "first_loss": 2.0, "images": 8}
    work = {"flops": 1e9, "parameters": 10, "utilisation": 0.5, "ceiling": "tf32", "of_roofline": 0.25}
    return own | work | {"roofline_s": 0.003, "eager_roofline_s": 0.004} | more


def report(**graphs: float) -> dict[str, Any]:
    stages = {"batch": 0.001, "forward": 0.002, "backward": 0.003, "exchange": 0.0, "optimizer": 0.004}
    ratios = {"times_as_long": asdict(over_rounds([1.9, 2.0, 3.0])), "first_loss": -0.001}
    return {
        "clock": "cpu",
        "ceilings": {"fp32": 1e12, "tf32": 2e12, "bytes": 1e9},
        "forms": {"this": row(**graphs), "usual": row(spread=0.5)},
        "stages": {"this": stages, "usual": {key: value for key, value in stages.items() if key != "exchange"}},
        "ratios": {"usual": ratios},
    }


def shown(found: dict[str, Any], most_spread: float = 0.1) -> str:
    console = Console(file=StringIO(), width=200)
    show_forms(found, most_spread, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_busy_machine_is_told() -> None:
    text = shown(report())
    assert "usual: no verdict: a busy machine, rounds spread by 28%, above 10%" in text
    assert "rounds' times spread by more than 10%" in text
    assert "faster │" not in text
    calm = shown(report(), most_spread=0.9)
    assert "busy" not in calm
    assert "2.00 (1.90 to 3.00)" in calm


def test_clock_exchange_ceiling_and_loss_are_named() -> None:
    text = shown(report(), most_spread=0.9)
    assert "CPU ms a step" in text
    assert "in backward" in text
    assert "50% of this device's 2 TFLOP/s in tf32" in text
    assert "-0.10%" in text


@pytest.mark.parametrize(
    ("graphs", "told"),
    [
        ({}, ""),
        ({"cudagraphs": 1.0, "cudagraph_skips": 0.0}, ""),
        ({"cudagraphs": 1.0, "cudagraph_skips": 2.0}, "this: the compiler left CUDA graphs out 2 times"),
        ({"cudagraphs": 0.0, "cudagraph_skips": 0.0}, "this: the compiler left CUDA graphs out altogether"),
    ],
)
def test_graphs_that_were_left_out_are_told(graphs: dict[str, float], told: str) -> None:
    text = shown(report(**graphs))
    assert told in text
    assert ("CUDA graphs" in text) == bool(told)


def test_more_ranks() -> None:
    shares = {"1": [1.0, 1.0, 1.0], "2": [0.8, 0.9, 0.9]}
    rows = {
        name: {"img_per_s": 10.0, "share": asdict(over_rounds(share)), "exchange_share": None}
        for name, share in shares.items()
    }
    console = Console(file=StringIO(), width=200)
    show_scaling(rows, 0.01, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0.90 (0.80 to 0.90)" in text
    assert "2 ranks: no verdict: a busy machine" in text
    assert "1 ranks" not in text


def test_the_step_on_paper_is_the_measured_one() -> None:
    settings = parse(BenchSettings, ["--batch.micro", "8", "--engine.zero_stage", "1", "--engine.overlap", "true"])
    cost = step_cost(report(), settings)
    assert (cost.images, cost.forward_s, cost.backward_s, cost.optimizer_s) == (8, 0.024, 0.024, 0.032)
    assert (cost.zero_stage, cost.overlap, cost.one_graph) == (1, True, False)
