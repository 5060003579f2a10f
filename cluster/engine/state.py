"""The whole state of a training as named tensors that know of no ranks, and back into any world at any ZeRO stage.

    model/<name>                  weights and buffers
    optimizer/<key>/<parameter>   the optimiser's moments, each of its parameter's shape
    optimizer/step                updates done

ZeRO keeps the moments in flat pieces, one per rank; DeepSpeed's public helpers gather a parameter's from all of them
and put it back, so that what is written never holds a piece. Weights need no gathering: the engine never casts them, so
every rank has them whole after each step.

DeepSpeed's own files are not used. Those of stages 1 and 2 fit one number of ranks. Its universal format would need a
conversion by a second program, which reads and writes everything again, and cannot be read at stage 0. And all of them
are pickles, of which only an allow-list makes something that may be loaded.
"""

from collections.abc import Iterator
from typing import Any

import torch
from deepspeed.utils import (
    lazy_init_hp_params_optimizer_state,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)
from torch import nn

MODEL = "model/"
OPTIMIZER = "optimizer/"
STEP = f"{OPTIMIZER}step"

State = dict[str, torch.Tensor]


def gather(model: nn.Module, optimizer: torch.optim.Optimizer, zero: Any, keep: bool) -> State:
    """Copy the state between two steps to host memory; all ranks call it, and those that do not `keep` get nothing.

    Args:
        model: as the engine trains it.
        optimizer: torch's, after at least one step.
        zero: DeepSpeed's ZeRO optimiser around it; None at stage 0.
        keep: whether this rank wants the state.
    """
    state: State = {}

    def put(name: str, value: torch.Tensor) -> None:
        if keep:
            plain = torch.contiguous_format
            state[name] = value.detach().to("cpu", copy=True, memory_format=plain)

    for name, value in model.state_dict().items():
        put(f"{MODEL}{name}", value)
    for name, parameter in _trained(model):
        for key in _keys(optimizer, zero, parameter):
            whole = optimizer.state[parameter][key] if zero is None else safe_get_full_optimizer_state(parameter, key)
            put(f"{OPTIMIZER}{key}/{name}", whole)
    put(STEP, max((_number(values["step"]) for values in optimizer.state.values() if values), default=torch.zeros(())))
    return state


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, zero: Any, state: State) -> None:
    """Put a state that `misfit` has nothing against into a new engine of any world and stage; all ranks call it."""
    model.load_state_dict({name.removeprefix(MODEL): v for name, v in state.items() if name.startswith(MODEL)})
    moments: dict[str, State] = {}
    for name, value in state.items():
        if name.startswith(OPTIMIZER) and name != STEP:
            key, _, of = name.removeprefix(OPTIMIZER).partition("/")
            moments.setdefault(of, {})[key] = value
    if zero is not None:
        _link(optimizer, zero, {key for values in moments.values() for key in values}, state[STEP])
    for name, parameter in _trained(model):
        own = moments.get(name, {})
        if zero is not None:
            safe_set_full_fp32_param(parameter, parameter.detach())
            for key, value in own.items():
                safe_set_full_optimizer_state(parameter, value.to(parameter.device), key)
        elif own:
            kept = {key: torch.empty_like(parameter).copy_(value) for key, value in own.items()}
            optimizer.state[parameter] = {"step": _count(optimizer, state[STEP], parameter), **kept}


def misfit(model: nn.Module, state: State) -> str:
    """What keeps a state from being this model's, in a few words; nothing where it is."""
    shapes = {f"{MODEL}{name}": value.shape for name, value in model.state_dict().items()}
    found = {name: value.shape for name, value in state.items() if name.startswith(MODEL)}
    for name in sorted(shapes.keys() | found.keys()):
        if shapes.get(name) != found.get(name):
            sizes = [list(size) if size is not None else "nothing" for size in (found.get(name), shapes.get(name))]
            return f"{name.removeprefix(MODEL)} is {sizes[0]} there, {sizes[1]} here"
    parameters = {name: parameter.shape for name, parameter in _trained(model)}
    for name, value in state.items():
        if name.startswith(OPTIMIZER) and name != STEP:
            parameter = name.removeprefix(OPTIMIZER).partition("/")[2]
            if parameters.get(parameter) != value.shape:
                return f"{name} belongs to no parameter"
    return "" if STEP in state else f"{STEP} is missing"


def _link(optimizer: torch.optim.Optimizer, zero: Any, keys: set[str], step: torch.Tensor) -> None:
    """Give ZeRO's flat pieces the empty moments that it would make in its first step."""
    for group, flat in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
        count = _count(optimizer, step, flat)
        optimizer.state[flat] = {"step": count, **{key: torch.zeros_like(flat) for key in keys}}
        lazy_init_hp_params_optimizer_state(group, flat, optimizer.state)


def _count(optimizer: torch.optim.Optimizer, step: torch.Tensor, updated: torch.Tensor) -> torch.Tensor:
    """The number of updates, where the optimiser wants it: a fused one beside what it updates, others on the host."""
    return step.to(updated.device if optimizer.defaults.get("fused") else "cpu", copy=True)


def _keys(optimizer: torch.optim.Optimizer, zero: Any, parameter: nn.Parameter) -> list[str]:
    """The names of the optimiser's moments: what it keeps in the shape of what it updates; the same on all ranks."""
    updated = zero.single_partition_of_fp32_groups[0] if zero is not None else parameter
    return [key for key, value in optimizer.state.get(updated, {}).items() if value.shape == updated.shape != ()]


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _number(step: Any) -> torch.Tensor:
    return torch.as_tensor(step, dtype=torch.float32).cpu()
