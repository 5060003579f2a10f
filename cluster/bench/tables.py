"""The bench's figures as tables and sentences."""

from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.bench.measure import ratio_of
from cluster.bench.ratio import Ratio
from cluster.bench.scaling import GPUS, StepCost, limit, predict
from cluster.bench.settings import BenchSettings, NetworkSettings

_CLOCKS = {"wall": "ms", "cpu": "CPU ms"}


def show(report: dict[str, Any], settings: BenchSettings, console: Console) -> None:
    """Print all there is."""
    show_forms(report, settings.most_spread, console)
    if "scaling" in report:
        show_scaling(report["scaling"], settings.most_spread, console)
    if settings.paper:
        cost = step_cost(report, settings)
        show_paper(cost, settings.network, console)
        if settings.engine.overlap and cost.one_graph:
            _say(
                console,
                "engine.overlap hides nothing with engine.compile: the backward pass is one graph, which hands all"
                " gradients over at its end",
            )


def show_forms(report: dict[str, Any], most_spread: float, console: Console) -> None:
    """Forms, their stages and how near they come to the device's ceilings."""
    _forms(report, most_spread, console)
    _stages(report, console)
    for name, row in report["forms"].items():
        _say(console, f"{name}: {_work(row, report['ceilings'])}")
        if row.get("cudagraph_skips") or not row.get("cudagraphs", True):
            left_out = f"{row['cudagraph_skips']:.0f} times" if row["cudagraphs"] else "altogether"
            _say(console, f"{name}: the compiler left CUDA graphs out {left_out}; TORCH_LOGS=perf_hints says why")


def show_paper(cost: StepCost, network: NetworkSettings, console: Console) -> None:
    """What GPUs by the number would do with that step."""
    table = Table("GPUs", "img/s", "efficiency", "waiting for the exchange, ms", title="on paper")
    for gpus in GPUS:
        row = predict(cost, gpus, network)
        table.add_row(str(gpus), f"{row.images_per_s:.0f}", f"{row.efficiency:.1%}", f"{1e3 * row.exposed_s:.1f}")
    console.print(table)
    _say(console, limit(cost, network))


def step_cost(report: dict[str, Any], settings: BenchSettings) -> StepCost:
    """The measured step of the first form, for the model on paper."""
    name, row = next(iter(report["forms"].items()))
    engine, images = settings.engine, settings.batch.micro
    stages = {stage: seconds * row["images"] for stage, seconds in report["stages"][name].items()}
    return StepCost(
        images,
        stages["forward"] + stages["batch"],
        stages["backward"],
        stages["optimizer"],
        row["parameters"],
        2 if engine.exchange == "bf16" else 4,
        overlap=engine.overlap,
        zero_stage=engine.zero_stage,
        one_graph=engine.compile != "off",
        bucket_bytes=1e6 * engine.bucket_mb,
    )


def _forms(report: dict[str, Any], most_spread: float, console: Console) -> None:
    first = next(iter(report["forms"]))
    clock = _CLOCKS[report["clock"]]
    table = _table(
        *("form", f"{clock} a step", "img/s", "spread", "peak MiB"),
        *(f"{first} is faster by", "verdict", "first loss"),
    )
    doubts: dict[str, str] = {}
    for name, row in report["forms"].items():
        cells = (f"{row['ms']:.1f}", f"{row['img_per_s']:.1f}", f"{row['spread']:.1%}", f"{row['bytes'] / 2**20:.0f}")
        told, loss = ("", ""), f"{row['first_loss']:.6g}"
        if name in report["ratios"]:
            ratio = ratio_of(report, name)
            told = (ratio.told(), ratio.direction(most_spread))
            doubts[name] = ratio.doubt(most_spread)
            loss = f"{report['ratios'][name]['first_loss']:+.2%}"
        table.add_row(name, *cells, *told, loss)
    console.print(table)
    _doubts(doubts, console)
    if any(row["spread"] > most_spread for row in report["forms"].values()):
        load = f", load average {report['load']:.1f} before" if "load" in report else ""
        _say(console, f"rounds' times spread by more than {most_spread:.0%}{load}; take the ratios, not the times")


def _stages(report: dict[str, Any], console: Console) -> None:
    stages = list(dict.fromkeys(stage for row in report["stages"].values() for stage in row))
    table = _table("ms a picture", *stages)
    for name, row in report["stages"].items():
        table.add_row(name, *(f"{1e3 * row[stage]:.3f}" if stage in row else "in backward" for stage in stages))
    console.print(table)
    if loader := report.get("loader"):
        told = ", ".join(f"{stage} {1e3 * seconds:.3f}" for stage, seconds in loader.items() if stage != "whole")
        _say(console, f"the loader's stages, ms a picture: {told}")
    if "checkpoint_s" in report:
        _say(console, f"a checkpoint: {1e3 * report['checkpoint_s']:.0f} ms")


def _table(first: str, *others: str) -> Table:
    """One whose rows' names are never cut short."""
    table = Table()
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name)
    return table


def _work(row: dict[str, Any], ceilings: dict[str, float]) -> str:
    """Utilisation and the distance from the roofline, in a sentence."""
    return (
        f"{row['flops'] / 1e9:.1f} GFLOP a picture, {row['utilisation']:.0%} of this device's"
        f" {ceilings[row['ceiling']] / 1e12:.3g} TFLOP/s in {row['ceiling']}; the layer roofline is"
        f" {1e3 * row['roofline_s']:.3g} ms a picture at {ceilings['bytes'] / 1e9:.3g} GB/s"
        f" ({1e3 * row['eager_roofline_s']:.3g} ms with BatchNorm and ReLU apart): {row['of_roofline']:.0%} reached"
    )


def show_scaling(rows: dict[str, Any], most_spread: float, console: Console) -> None:
    """What more ranks on this machine make of it."""
    first = next(iter(rows))
    table = Table("ranks", "img/s", f"of as many times {first}'s", "exchange")
    doubts = {}
    for name, row in rows.items():
        share, exchange = Ratio(**row["share"]), row["exchange_share"]
        told = "in backward" if exchange is None else f"{exchange:.1%}"
        table.add_row(name, f"{row['img_per_s']:.1f}", share.told() if name != first else "", told)
        doubts[f"{name} ranks"] = share.doubt(most_spread) if name != first else ""
    console.print(table)
    _doubts(doubts, console)


def _doubts(doubts: dict[str, str], console: Console) -> None:
    for name, doubt in doubts.items():
        if doubt:
            _say(console, f"{name}: {doubt}")


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False)
