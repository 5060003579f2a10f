"""What checkpoints cost a training: steps without any, with each written at once, and with each written by a thread.

One rank trains on made-up pictures. In every round each form does the same number of steps and saves after the first of
them, so that the thread has the others to write in; the forms take turns, so that a noisy machine is noisy for all of
them. `pause` is how long the save itself held the training up, `round` the whole round against one without a save.
Times are medians. The default network is small; `--backbone resnet50 --width 64 --decoder 256` is a full one.

    python benchmarks/checkpoint.py [--rounds 5] [--steps 20] [--folder /scratch/x] [--device cuda]
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from cluster.bench.about import about
from cluster.engine.checkpoint import Checkpoints
from cluster.engine.engine import Engine, choose_device, join_world, leave_world
from cluster.fence import Fence
from cluster.settings import EngineSettings
from cluster.world import World, free_port
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings

FORMS = ("none", "at once", "thread")
TARGET = 0.5
"""The pause with a thread, against that without."""


def build(arguments: argparse.Namespace, world: World) -> Engine:
    """The network under DeepSpeed, with Adam."""
    settings = EngineSettings(device=arguments.device, threads=arguments.threads)
    device = choose_device(arguments.device)
    join_world(world, settings, device)
    side = arguments.side
    network = PoseNetwork(
        ModelSettings(
            backbone=arguments.backbone,
            width=arguments.width,
            crop_width=side,
            crop_height=side,
            depth=8,
            ppm_bins=(1, 2),
            decoder_channels=arguments.decoder,
        )
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    return Engine(network, optimizer, settings, world, arguments.batch, 1, 0.0, device)


def play(engine: Engine, checkpoints: Checkpoints, form: str, steps: int, number: int, inputs: torch.Tensor) -> float:
    """A round of steps, with a save after the first one; seconds that the save held it up."""
    pause = 0.0
    for step in range(steps):
        engine.backward(engine.forward(inputs).square().mean())
        engine.step()
        if step == 0 and form != "none":
            _wait(engine)
            began = time.perf_counter()
            checkpoints.save(engine, number, {}, wait=form == "at once")
            pause = time.perf_counter() - began
    _wait(engine)
    return pause


def _wait(engine: Engine) -> None:
    if engine.device.type == "cuda":
        torch.cuda.synchronize()


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each round and of the pause in it, for each form, after one round to warm up."""
    world = World(port=free_port())

    os.environ |= world.variables()
    engine = build(arguments, world)
    inputs = torch.randn(arguments.batch, 3, arguments.side, arguments.side, device=engine.device)
    checkpoints = Checkpoints(folder / "checkpoints", 0, 1, Fence(folder, 1))
    found: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    for number in range(arguments.rounds + 1):
        for form in FORMS:
            began = time.perf_counter()
            pause = play(engine, checkpoints, form, arguments.steps, number + 1, inputs)
            found[form].append((time.perf_counter() - began, pause))
            checkpoints.finish()  # what is left is not the next form's to bear
    leave_world()
    return {form: rounds[1:] for form, rounds in found.items()}


def _verdict(share: float) -> str:
    return "met" if share <= TARGET else "missed"


def main() -> None:
    """Print JSON lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of a round; one checkpoint each")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--decoder", type=int, default=64)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="on the file system to measure")
    arguments = parser.parse_args()
    print(json.dumps({"about": about()}), flush=True)
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    table = Table("checkpoint", "pause ms", "pause / step", "round / round without", "verdict")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = measure(arguments, Path(folder))
        [saved] = (Path(folder) / "checkpoints").glob("step-*/state.safetensors")
        size = saved.stat().st_size / 2**20
    pauses: dict[str, float] = {}
    bare = statistics.median(seconds for seconds, _ in found["none"])
    for form, rounds in found.items():
        pause = statistics.median(pause for _, pause in rounds)
        ratio = statistics.median(
            seconds / without for (seconds, _), (without, _) in zip(rounds, found["none"], strict=True)
        )
        of_step = pause / (bare / arguments.steps)
        row = {"form": form, "mib": round(size, 1), "pause_ms": round(1e3 * pause, 1), "pause_steps": round(of_step, 2)}
        print(json.dumps(row | {"round_ratio": round(ratio, 3), "steps": arguments.steps}))
        pauses[form] = pause
        share = pause / pauses["at once"] if form == "thread" else 0.0
        verdict = f"{share:.2f} of the pause; target {TARGET}: {_verdict(share)}" if share else ""
        table.add_row(form, f"{1e3 * pause:.0f}", f"{of_step:.2f}", f"{ratio:.3f}", verdict)
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
