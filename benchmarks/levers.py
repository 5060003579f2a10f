"""What each lever of the training step gives on a CPU, by CPU time, all forms in turns within one process.

Plain torch without DeepSpeed, so that it starts fast and also tells something on a machine that others use:
`benchmarks/throughput.py --levers` is the whole thing. ResNet-50 at 256x256 with 64 cells of depth; the forms hold the
same weights and differ from the first, which is ours, in one thing each.

    python benchmarks/levers.py [--batch 2] [--rounds 5]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from cluster.bench.rounds import compare
from cluster.engine.recompute import recompute_blocks
from poselib.losses import compute_loss
from poselib.model.network import PoseNetwork
from poselib.settings import LossSettings, ModelSettings

MODEL = ModelSettings(ppm_bins=None)
OURS = {"bf16": True, "channels_last": True, "fused": True, "recompute": False, "soft_argmax": "recompute"}
FORMS = {
    "ours": OURS,
    "fp32": OURS | {"bf16": False},
    "not channels_last": OURS | {"channels_last": False},
    "Adam not fused": OURS | {"fused": False},
    "soft-argmax reference": OURS | {"soft_argmax": "reference"},
    "activation checkpointing": OURS | {"recompute": True},
}


def form_of(levers: dict, batch: int) -> Callable[[], float]:
    """A step of it, which gives its CPU seconds."""
    torch.manual_seed(0)
    model = replace(MODEL, soft_argmax=levers["soft_argmax"])
    network = PoseNetwork(model)
    images = torch.randn(batch, 3, 256, 256)
    if levers["channels_last"]:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.to(memory_format=torch.channels_last)
    if levers["recompute"]:
        recompute_blocks(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=levers["fused"] or None)
    targets, weights = torch.rand(batch, 17, 3) - 0.5, torch.ones(batch, 17, 3)

    def step() -> float:
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=levers["bf16"]):
            loss = compute_loss(network, images, targets, weights, model, LossSettings())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - began

    return step


def main() -> None:
    """Print JSON lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps = {name: form_of(levers, arguments.batch) for name, levers in FORMS.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(arguments.rounds + 1):
        for name, step in steps.items():
            seconds = step()
            if number:
                times[name].append(seconds)
    table = Table("form", "CPU ms a step", "times ours", "least to most", "spread")
    for name, own in times.items():
        ratio = compare(times["ours"], own)
        row = {"form": name, "ms": round(1e3 * statistics.median(own), 1), "times_ours": round(ratio.median, 3)}
        row |= {"least": round(ratio.least, 3), "most": round(ratio.most, 3), "spread": round(ratio.spread, 3)}
        print(json.dumps(row), flush=True)
        span = f"{ratio.least:.2f} to {ratio.most:.2f}"
        table.add_row(name, f"{row['ms']:.0f}", f"{ratio.median:.2f}", span, f"{ratio.spread:.1%}")
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
