"""A run's engine, with its levers; and whether this machine has what they need."""

import importlib.util
import os
import shutil
from typing import Final

import torch

from cluster.engine.engine import Engine
from cluster.settings import EngineSettings, Run
from cluster.world import World
from poselib.errors import InputError

_COMPILERS: Final = {"cpu": ("CXX", "c++", "g++", "clang++"), "cuda": ("CC", "gcc", "clang")}
"""A variable that names the compiler, then those that torch and Triton look for."""


def build_engine(run: Run, network: torch.nn.Module, world: World, accumulation: int, device: torch.device) -> Engine:
    """Adam and DeepSpeed around a network, as the run's settings have them.

    Raises:
        InputError: the settings do not go together in this world.
    """
    if run.engine.cuda_graphs and accumulation > 1:
        raise InputError(
            f"engine.cuda_graphs must be false where a step has {accumulation} micro-batches per rank: a replayed graph"
            " writes each one's gradient over the last one's; take more ranks or a smaller batch.global"
        )
    settings = run.optimizer
    optimizer = torch.optim.Adam(
        network.parameters(), lr=settings.lr, betas=settings.betas, fused=run.engine.fused_optimizer or None
    )
    return Engine(network, optimizer, run.engine, world, run.batch.micro, accumulation, settings.clip, device)


def check_levers(settings: EngineSettings, device: torch.device) -> None:
    """Refuse what this machine lacks, by the setting's name, before anything is computed.

    Raises:
        InputError: CUDA graphs without CUDA, or compilation without what it takes.
    """
    if settings.cuda_graphs and device.type != "cuda":
        raise InputError(f"engine.cuda_graphs must be false on {_named(device)}: only CUDA devices have such graphs")
    if settings.compile == "off":
        return
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise InputError("engine.compile must be off here: the package triton, which it needs on GPUs, is missing")
    variable, *names = _COMPILERS[device.type]
    if not any(shutil.which(name) for name in (os.environ.get(variable) or names[0], *names)):
        needed = (
            "on GPUs it needs a C compiler for Triton" if device.type == "cuda" else "on a CPU it needs a C++ compiler"
        )
        raise InputError(f"engine.compile must be off here: {needed}, such as {names[-2]}, and none is found")
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (7, 0):
        raise InputError(f"engine.compile must be off on {_named(device)}: Triton needs compute capability 7.0")


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
