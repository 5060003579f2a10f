"""The bench's figures as tables and sentences."""

from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.bench.rounds import Ratio
from cluster.bench.scaling import GPUS, StepCost, limit, predict
from cluster.bench.settings import BenchSettings, NetworkSettings


def show(report: dict[str, Any], settings: BenchSettings, console: Console) -> None:
    """Print all there is."""
    _forms(report, settings, console)
    _stages(report, settings, console)
    work, ceilings = report["work"], report["ceilings"]
    console.print(
        f"{work['flops'] / 1e9:.1f} GFLOP a picture, {work['utilisation']:.0%} of this device's"
        f" {ceilings[settings.engine.precision] / 1e12:.3g} TFLOP/s in {settings.engine.precision}; the layer roofline"
        f" is {1e3 * work['roofline_s']:.3g} ms a picture at {ceilings['bytes'] / 1e9:.3g} GB/s"
        f" ({1e3 * work['eager_roofline_s']:.3g} ms with BatchNorm and ReLU apart): {work['of_roofline']:.0%} reached",
        soft_wrap=True,
        highlight=False,
    )
    if "scaling" in report:
        _scaling(report["scaling"], console)
    if settings.paper:
        from cluster.bench.command import step_cost

        show_paper(step_cost(report, settings), settings.network, console)


def show_paper(cost: StepCost, network: NetworkSettings, console: Console) -> None:
    """What GPUs by the number would do with that step."""
    table = Table("GPUs", "img/s", "efficiency", "waiting for the exchange, ms", title="on paper")
    for gpus in GPUS:
        row = predict(cost, gpus, network)
        table.add_row(str(gpus), f"{row.images_per_s:.0f}", f"{row.efficiency:.1%}", f"{1e3 * row.exposed_s:.1f}")
    console.print(table)
    console.print(limit(cost, network), soft_wrap=True, highlight=False)


def _forms(report: dict[str, Any], settings: BenchSettings, console: Console) -> None:
    table = Table("form", "ms a step", "img/s", "rounds' spread", "peak MiB", "this is faster by", "spread", "verdict")
    for name, row in report["forms"].items():
        ratio = Ratio(**report["ratios"][name]) if name in report["ratios"] else None
        busy = bool(ratio) and ratio.spread > settings.most_spread  # type: ignore[union-attr]
        cells = (f"{row['ms']:.1f}", f"{row['img_per_s']:.1f}", f"{row['spread']:.1%}")
        told = ("", "", "")
        if ratio:
            verdict = "no verdict: a busy machine" if busy else ("faster" if ratio.median > 1 else "slower")
            told = (f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})", f"{ratio.spread:.1%}", verdict)
        table.add_row(name, *cells, f"{report['memory'][name] / 2**20:.0f}", *told)
    console.print(table)
    if any(row["spread"] > settings.most_spread for row in report["forms"].values()):
        console.print(
            f"a busy machine: rounds spread by more than {settings.most_spread:.0%}, load average"
            f" {report['load']:.1f} before; take the ratios, not the times",
            soft_wrap=True,
            highlight=False,
        )


def _stages(report: dict[str, Any], settings: BenchSettings, console: Console) -> None:
    names = list(report["stages"])
    table = Table("stage, ms a picture", *names)
    for stage, seconds in report.get("loader", {}).items():
        if stage != "whole":
            table.add_row({"copy": "H2D"}.get(stage, stage), f"{1e3 * seconds:.3f}", *[""] * (len(names) - 1))
    for stage in report["stages"][names[0]]:
        per_picture = (1e3 * report["stages"][name][stage] / settings.batch.micro for name in names)
        table.add_row(stage, *(f"{ms:.3f}" for ms in per_picture))
    table.add_row("checkpoint, ms each", f"{1e3 * report['checkpoint_s']:.0f}", *[""] * (len(names) - 1))
    console.print(table)


def _scaling(rows: dict[str, Any], console: Console) -> None:
    first = min(rows, key=int)
    table = Table("ranks", "img/s", "of as many times the fewest's", "exchange", "rounds' spread")
    for name, row in rows.items():
        share = row["img_per_s"] / int(name) / (rows[first]["img_per_s"] / int(first))
        table.add_row(
            name, f"{row['img_per_s']:.1f}", f"{share:.0%}", f"{row['exchange_share']:.1%}", f"{row['spread']:.1%}"
        )
    console.print(table)
