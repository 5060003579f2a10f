"""One rank of test_elastic.py: trains a small network at each ZeRO stage, whole, halted, and from what others left."""

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn

from cluster.engine.batchnorm import combine_statistics
from cluster.engine.checkpoint import Checkpoints
from cluster.engine.engine import Engine, join_world, leave_world
from cluster.fence import Fence
from cluster.settings import EngineSettings
from cluster.world import current_world
from shards.order import share

STEPS, HALF, PER_STEP, MICRO = 8, 4, 2, 3
"""Steps of a run, those before a halt, micro-batches of a step, and their samples."""


def new_engine(stage: int, world) -> Engine:
    torch.manual_seed(0)
    # A bias before BatchNorm has no gradient but rounding, which Adam would blow up. Sizes that no number of
    # ranks divides, so that ZeRO's pieces end within parameters.
    body = nn.Sequential(nn.Conv2d(3, 7, 3, bias=False), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 5, 3), nn.Flatten())
    model = nn.Sequential(body, nn.Linear(5 * 16, 3))
    model.forward = lambda inputs, output: nn.Sequential.forward(model, inputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    accumulation = len(share(0, PER_STEP, world.rank, world.size))
    return Engine(
        model, optimizer, EngineSettings(zero_stage=stage), world, MICRO, accumulation, 1.0, torch.device("cpu")
    )


def train(engine: Engine, world, start: int, end: int) -> list[float]:
    """The mean loss of each step over all ranks."""
    engine.model.train()
    losses = []
    for step in range(start, end):
        engine.set_lr(1e-2 / (1 + step))
        total = torch.zeros(1)
        for index in share(step, PER_STEP, world.rank, world.size):
            generator = torch.Generator().manual_seed(index)
            inputs, target = (torch.randn(*size, generator=generator) for size in ((MICRO, 3, 8, 8), (MICRO, 3)))
            loss = (engine.forward(inputs) - target).square().mean()
            engine.backward(loss)
            engine.step()
            total += loss.detach() / PER_STEP
        if world.size > 1:
            torch.distributed.all_reduce(total)
        losses.append(total.item())
    combine_statistics(engine.model, world.size, end * PER_STEP)
    return losses


def main(folder: Path, told: list[str]) -> None:
    """Words `whole`, `halt:NAME`, `from:NAME`: for each stage, print its losses and its last weights' sum."""
    world = current_world()
    assert world is not None
    join_world(world, EngineSettings(timeout_s=60, threads=1), torch.device("cpu"))
    for word in told:
        kind, _, name = word.partition(":")
        for stage in (0, 1, 2):
            engine = new_engine(stage, world)
            start = 0
            if kind == "from":  # what the stage before it has left, then what it has left itself
                source = name.partition("+")
                place = folder / f"{source[0]}-{(stage + int(source[2] or 0)) % 3}"
                while not (place / "step-00000004").exists():
                    time.sleep(0.05)
                start, _ = checkpoints(place, world.rank).load(engine, place / "step-00000004")
            parts = {"whole": [(0, HALF), (HALF, STEPS)], "halt": [(0, HALF)], "from": [(start, STEPS)]}[kind]
            losses = [loss for part in parts for loss in train(engine, world, *part)]
            if kind == "halt":
                checkpoints(folder / f"{name}-{stage}", world.rank).save(engine, HALF, {})
            weights = {key: value.double().sum().item() for key, value in engine.model.state_dict().items()}
            if world.is_main:
                print(json.dumps({"word": word, "stage": stage, "losses": losses, "weights": weights}), flush=True)
            engine.deepspeed.destroy()
    leave_world()


def checkpoints(folder: Path, rank: int) -> Checkpoints:
    return Checkpoints(folder, rank, 2, Fence(folder, 1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
