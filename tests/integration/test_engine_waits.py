"""A step of the engine never waits for the device by itself: on a GPU that would undo all overlap."""

import os
import subprocess
import sys

import pytest
import torch

from cluster.engine.engine import Engine, join_world, leave_world
from cluster.settings import EngineSettings
from cluster.world import World, free_port

pytestmark = pytest.mark.integration

STEPS = 8


def test_a_step_waits_for_no_device() -> None:
    child = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == [str(STEPS), "0"]


def main() -> None:
    """Print the steps that were taken, and how often the device was waited for."""
    world, device = World(port=free_port()), torch.device("cpu")
    os.environ |= world.variables()
    join_world(world, EngineSettings(threads=1), device)
    model = torch.nn.Sequential(torch.nn.Linear(4, 2))
    model.forward = lambda inputs, output: torch.nn.Sequential.forward(model, inputs)
    engine = Engine(model, torch.optim.Adam(model.parameters()), EngineSettings(), world, 2, 1, 1.0, device)
    from deepspeed.accelerator import get_accelerator

    waits: list[object] = []
    get_accelerator().synchronize = lambda *device: waits.append(device)
    for _ in range(STEPS):
        engine.backward(engine.forward(torch.randn(2, 4)).square().mean())
        engine.step()
    print(engine.deepspeed.global_steps, len(waits))
    leave_world()


if __name__ == "__main__":
    main()
