"""The training step beside the usual way, and what each lever gives it: all forms take turns in one run.

On a CPU the network is ResNet-50 at 256x256 with 64 cells of depth, batch 8, bf16 against the usual way's fp32; the
targets are 1.5 times its speed and 70 % of its peak memory. `--gpu` is for one GPU: the report's final and baseline
networks, batches 64 and 14, compiled, and the usual way, one after another. Each form lives in a process of its own.

    python benchmarks/throughput.py [--rounds 5] [--clock cpu] [--levers] [--out FILE]
    python benchmarks/throughput.py --gpu [--h36m SHARDS --voc SHARDS]
"""

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from cluster.bench.rounds import Form, Team, alternate, as_rows, compare
from cluster.bench.work import work_of
from cluster.config import construct
from cluster.settings import Run

SPEED, MEMORY, SPREAD = 1.5, 0.7, 0.1
CPU: dict[str, Any] = {"name": "bench", "data": {"h36m": ""}, "model": {"ppm_bins": None}, "batch": {"micro": 8}}
CPU["engine"] = {"precision": "bf16", "device": "cpu", "threads": 1}
LEVERS: dict[str, dict[str, Any]] = {
    "engine.precision fp32": {"engine": {"precision": "fp32"}},
    "engine.channels_last false": {"engine": {"channels_last": False}},
    "engine.fused_optimizer true": {"engine": {"fused_optimizer": True}},
    "engine.activation_checkpointing true": {"engine": {"activation_checkpointing": True}},
    "model.soft_argmax reference": {"model": {"soft_argmax": "reference"}},
    "model.soft_argmax chunked": {"model": {"soft_argmax": "chunked"}},
}
FINAL: dict[str, Any] = {"backbone": "resnet152", "crop_width": 288, "crop_height": 384, "depth": 72}
GPU_ENGINE: dict[str, Any] = {"precision": "bf16", "device": "cuda"}
GPU: dict[str, tuple[dict[str, Any], int, dict[str, Any], str]] = {
    "final, 64": (FINAL, 64, GPU_ENGINE | {"compile": "default"}, "ours"),
    "final, 64, not compiled": (FINAL, 64, GPU_ENGINE, "ours"),
    "final, 64, the usual way": (FINAL, 64, GPU_ENGINE, "usual"),
    "final, 14": (FINAL, 14, GPU_ENGINE | {"compile": "default"}, "ours"),
    "final, 14, CUDA graphs": (FINAL, 14, GPU_ENGINE | {"compile": "default", "cuda_graphs": True}, "ours"),
    "baseline, 64": ({"ppm_bins": None}, 64, GPU_ENGINE | {"compile": "default"}, "ours"),
    "baseline, 64, the usual way": ({"ppm_bins": None}, 64, GPU_ENGINE, "usual"),
}
"""Network, batch, engine and kind; all of them are held on the GPU at once but take turns."""


def on_cpu(arguments: argparse.Namespace) -> list[Form]:
    """Ours, the usual way, and ours with each lever as it is not."""
    forms = [Form("ours", yaml.safe_dump(CPU)), Form("the usual way", yaml.safe_dump(CPU), "usual")]
    for name, changes in LEVERS.items() if arguments.levers else ():
        changed = {key: CPU.get(key, {}) | changes.get(key, {}) if key in changes else CPU[key] for key in CPU}
        forms.append(Form(name, yaml.safe_dump(changed)))
    return forms


def on_gpu(arguments: argparse.Namespace) -> list[Form]:
    """What the targets for one GPU speak of; with a shard set, the loader is part of every step."""
    forms = []
    for name, (model, batch, engine, kind) in GPU.items():
        data = {"h36m": arguments.h36m} | ({"voc": arguments.voc} if arguments.voc else {})
        run: dict[str, Any] = {"name": "bench", "data": data, "model": model, "batch": {"micro": batch}}
        run |= {"engine": engine, "crop": {"allow_border": True}}
        run |= {"augment": {"occluders": 0.75}} if arguments.voc else {}
        forms.append(Form(name, yaml.safe_dump(run), kind, loader=bool(arguments.h36m)))
    return forms


def main() -> None:
    """Print JSON lines, a table and the verdicts; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="of a turn; 1 on a CPU, 10 on a GPU")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="cpu", help="on a CPU")
    parser.add_argument("--levers", action="store_true", help="each lever by itself besides")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--h36m", default="", help="a shard set, for --gpu")
    parser.add_argument("--voc", default="", help="an occluder bank, for --gpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    forms = on_gpu(arguments) if arguments.gpu else on_cpu(arguments)
    steps = arguments.steps or (10 if arguments.gpu else 1)
    seconds: dict[str, list[float]] = {}
    found: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        teams = [stack.enter_context(Team(form)) for form in forms]
        seconds = alternate(teams, arguments.rounds, steps, "wall" if arguments.gpu else arguments.clock)
        for team in teams:
            found[team.form.name] = {"peak_mib": team.ask("memory")["bytes"] / 2**20}
        ceilings = teams[0].ask("ceilings")
    first = forms[0].name
    table = Table("form", "ms a step", "img/s", "of roofline", "times first's time", "spread", "peak MiB")
    for form in forms:
        run = construct(Run, form.yaml, form.name)
        times = seconds[form.name]
        row = found[form.name] | as_rows({"x": times}, run.batch.micro)["x"]
        ratio = compare(seconds[first], times)
        bytes_each = 2 if run.engine.precision == "bf16" else 4
        roofline = work_of(run.model).roofline_s(ceilings[run.engine.precision], ceilings["bytes"], bytes_each)
        row |= {"of_roofline": roofline * row["img_per_s"], "times_first": ratio.median, "ratio_spread": ratio.spread}
        found[form.name] = row
        print(json.dumps({"form": form.name} | row), flush=True)
        cells = (f"{row['ms']:.1f}", f"{row['img_per_s']:.1f}", f"{row['of_roofline']:.0%}")
        table.add_row(form.name, *cells, f"{ratio.median:.2f}", f"{ratio.spread:.1%}", f"{row['peak_mib']:.0f}")
    console = Console(stderr=True)
    console.print(table)
    if arguments.out:
        arguments.out.write_text(json.dumps({"seconds": seconds, "found": found, "ceilings": ceilings}, indent=1))
    verdicts = _gpu_verdicts(seconds, found) if arguments.gpu else _cpu_verdicts(seconds, found)
    for line in verdicts:
        console.print(line, soft_wrap=True, highlight=False)
    sys.exit(any("missed" in line for line in verdicts))


def _cpu_verdicts(seconds: dict[str, list[float]], found: dict[str, dict[str, float]]) -> list[str]:
    ratio = compare(seconds["ours"], seconds["the usual way"])
    share = found["ours"]["peak_mib"] / found["the usual way"]["peak_mib"]
    return [
        f"times as fast as the usual way: {ratio.median:.2f}, {ratio.verdict(SPEED, SPREAD)}",
        f"share of its peak memory: {share:.1%}, {'reached' if share <= MEMORY else 'missed'}: {MEMORY:.0%} wanted",
    ]


def _gpu_verdicts(seconds: dict[str, list[float]], found: dict[str, dict[str, float]]) -> list[str]:
    ratio = compare(seconds["final, 64"], seconds["final, 64, the usual way"])
    rates = {name: row["img_per_s"] for name, row in found.items()}
    small = max(rates["final, 14"], rates["final, 14, CUDA graphs"]) / rates["final, 64"]
    wanted = {
        "final, 64: img/s": (rates["final, 64"], 1200.0),
        "final, 64: share of the fused layer roofline": (found["final, 64"]["of_roofline"], 0.6),
        "final, 14: share of that rate": (small, 0.85),
        "baseline, 64: img/s": (rates["baseline, 64"], 4500.0),
    }
    lines = [
        f"{name} {value:.2f}, {'reached' if value >= least else 'missed'}: {least:g} wanted"
        for name, (value, least) in wanted.items()
    ]
    return [*lines, f"final, 64: times the usual way {ratio.median:.2f}, {ratio.verdict(2.5, SPREAD)}"]


if __name__ == "__main__":
    main()
