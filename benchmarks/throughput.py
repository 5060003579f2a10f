"""The training step beside the usual way, and what each lever gives it: `pose bench` over groups of forms.

The forms of a group take turns, each in processes of its own. On a CPU the first group is ResNet-50 at 256x256 with 64
cells of depth, batch 8, bf16 against the usual way's fp32; the second has each lever as it is not, and the third two
ranks on a small network with each way to exchange. `--gpu` is for one GPU: the report's final and
baseline networks, batches 64 and 14, compiled, and the usual way; with a shard set, the loader is part of every step.

Each group's figures go to a file of its own as soon as they are there.

    python benchmarks/throughput.py [--rounds 5] [--clock cpu] [--groups usual levers exchange] [--out data/bench]
    python benchmarks/throughput.py --gpu [--h36m SHARDS --voc SHARDS]
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cluster.bench.about import about
from cluster.bench.measure import level_of, measure, ratio_of
from cluster.bench.ratio import Ratio, over_rounds
from cluster.bench.rounds import Form, Turns
from cluster.bench.settings import Clock
from cluster.bench.tables import show_forms
from poselib.errors import InputError

SPREAD = 0.1
MODEL: dict[str, Any] = {"ppm_bins": None}
ENGINE: dict[str, Any] = {"precision": "bf16", "device": "cpu", "threads": 1}
LEVERS: dict[str, dict[str, Any]] = {
    "engine.precision fp32": {"engine": {"precision": "fp32"}},
    "engine.channels_last false": {"engine": {"channels_last": False}},
    "engine.fused_optimizer true": {"engine": {"fused_optimizer": True}},
    "engine.activation_checkpointing true": {"engine": {"activation_checkpointing": True}},
    "model.soft_argmax reference": {"model": {"soft_argmax": "reference"}},
    "model.soft_argmax chunked": {"model": {"soft_argmax": "chunked"}},
}
SMALL: dict[str, Any] = {"backbone": "resnet18", "width": 32, "crop_width": 64, "crop_height": 64, "depth": 8}
SMALL |= {"ppm_bins": None, "decoder_channels": 64, "decoder_layers": 2}
EXCHANGE: dict[str, dict[str, Any]] = {
    "two ranks": {},
    "engine.exchange bf16": {"exchange": "bf16"},
    "engine.bucket_mb 1": {"bucket_mb": 1},
    "engine.zero_stage 1": {"zero_stage": 1},
    "engine.zero_stage 1, overlap, bucket_mb 1": {"zero_stage": 1, "overlap": True, "bucket_mb": 1},
    "engine.zero_stage 2": {"zero_stage": 2},
}
FINAL: dict[str, Any] = {"backbone": "resnet152", "crop_width": 288, "crop_height": 384, "depth": 72}
GPU_ENGINE: dict[str, Any] = {"precision": "bf16", "device": "cuda", "compile": "default"}


@dataclass(frozen=True)
class Target:
    """What a group shall reach.

    Attributes:
        form: of the group; the best of them where there are several.
        figure: `img_per_s`, `of_roofline`, `times_as_long`, `share_of_memory`, or `share_of_rate`: of the first's.
        bound: to reach, or not to exceed.
        at_most: which of the two.
    """

    form: tuple[str, ...]
    figure: str
    bound: float
    at_most: bool = False

    def verdict(self, report: dict[str, Any]) -> str:
        """The figure with what is to be said of it."""
        name, found = max(((name, self._found(report, name)) for name in self.form), key=lambda each: each[1].median)
        return f"{name}: {self.figure} {found.told()}, {found.verdict(self.bound, SPREAD, self.at_most)}"

    def _found(self, report: dict[str, Any], name: str) -> Ratio:
        if self.figure in ("img_per_s", "of_roofline"):
            return level_of(report, name, self.figure)
        if self.figure == "share_of_rate":
            rows = (report["forms"][each]["seconds"] for each in (next(iter(report["forms"])), name))
            return over_rounds([first / own for first, own in zip(*rows, strict=True)])
        return ratio_of(report, name, self.figure)


@dataclass(frozen=True)
class Group:
    """Forms that take turns, and what they shall reach.

    Attributes:
        forms: the first is what all others are compared with.
        steps: of a turn.
        targets: may be none.
        wall: whether it has to go by that clock.
    """

    forms: list[Form]
    steps: int
    targets: tuple[Target, ...] = ()
    wall: bool = False


def form(name: str, model: dict[str, Any], batch: int, engine: dict[str, Any], **more: Any) -> Form:
    """A form of a run with made-up pictures."""
    run = {"name": "bench", "data": {"h36m": ""}, "model": model, "batch": {"micro": batch}, "engine": engine}
    return Form(name, yaml.safe_dump(run | more.pop("run", {})), **more)


def on_cpu() -> dict[str, Group]:
    """Ours beside the usual way; ours with each lever as it is not; two ranks with each way to exchange."""
    targets = (
        Target(("the usual way",), "times_as_long", 1.5),
        Target(("the usual way",), "share_of_memory", 0.7, at_most=True),
    )
    ours, usual = (
        form(name, MODEL, 8, ENGINE, kind=kind) for name, kind in (("ours", "ours"), ("the usual way", "usual"))
    )
    changed = {name: (MODEL | new.get("model", {}), ENGINE | new.get("engine", {})) for name, new in LEVERS.items()}
    pairs = {name: ENGINE | {"ranks": 2} | new for name, new in EXCHANGE.items()}
    return {
        "usual": Group([ours, usual], 1, targets),
        "levers": Group([ours, *(form(name, model, 8, engine) for name, (model, engine) in changed.items())], 1),
        "exchange": Group([form(name, SMALL, 8, engine) for name, engine in pairs.items()], 10, wall=True),
    }


def on_gpu(h36m: str, voc: str) -> dict[str, Group]:
    """What the targets for one GPU speak of, with no more than three forms in its memory at a time."""
    data: dict[str, Any] = {"h36m": h36m} | ({"voc": voc} if voc else {})
    how = {"data": data, "crop": {"allow_border": True}} | ({"augment": {"occluders": 0.75}} if voc else {})

    def ours(name: str, model: dict[str, Any], batch: int, kind: str = "ours", **engine: Any) -> Form:
        return form(name, model, batch, GPU_ENGINE | engine, kind=kind, loader=bool(h36m), run=how)

    final, baseline = ours("final, 64", FINAL, 64), ours("baseline, 64", MODEL, 64)
    small = ours("final, 14", FINAL, 14), ours("final, 14, CUDA graphs", FINAL, 14, cuda_graphs=True)
    first = (Target(("final, 64",), "img_per_s", 1200), Target(("final, 64",), "of_roofline", 0.6))
    usual = "the usual way"
    return {
        "final": Group([final, ours(usual, FINAL, 64, "usual")], 10, (*first, Target((usual,), "times_as_long", 2.5))),
        "batches": Group([final, *small], 20, (Target(tuple(each.name for each in small), "share_of_rate", 0.85),)),
        "baseline": Group(
            [baseline, ours(usual, MODEL, 64, "usual")], 20, (Target(("baseline, 64",), "img_per_s", 4500),)
        ),
        "compiled": Group([final, ours("final, 64, not compiled", FINAL, 64, compile="off")], 10),
    }


def main() -> None:
    """Print a JSON line and tables for each group, then all verdicts; 1 where one is missed or a group fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="of a turn; each group's own where 0")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="on a CPU")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--h36m", default="", help="a shard set, for --gpu")
    parser.add_argument("--voc", default="", help="an occluder bank, for --gpu")
    parser.add_argument("--groups", nargs="+", default=[], help="these alone")
    parser.add_argument("--out", type=Path, default=Path("data/bench"), help="folder for a JSON file of each group")
    arguments = parser.parse_args()
    groups = on_gpu(arguments.h36m, arguments.voc) if arguments.gpu else on_cpu()
    if unknown := set(arguments.groups) - set(groups):
        parser.error(f"--groups must be among {', '.join(groups)}, not {', '.join(unknown)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((arguments.out / "inductor").resolve()))
    console = Console(stderr=True)
    verdicts = []
    for name in arguments.groups or groups:
        verdicts += play(name, groups[name], arguments, console)
    for line in verdicts:
        console.print(line, soft_wrap=True, highlight=False)
    sys.exit(any("missed" in line or "failed" in line for line in verdicts))


def play(name: str, group: Group, arguments: argparse.Namespace, console: Console) -> list[str]:
    """Measure a group, write and show it; its verdicts."""
    clock: Clock = "wall" if arguments.gpu or group.wall else arguments.clock
    began = about()
    try:
        report = began | measure(group.forms, Turns(arguments.rounds, arguments.steps or group.steps, clock))
    except InputError as error:  # the other groups may do
        return [f"{name} failed: {error}"]
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({"group": name} | report), flush=True)
    show_forms(report, SPREAD, console)
    return [f"{name}: {target.verdict(report)}" for target in group.targets]


if __name__ == "__main__":
    main()
