"""The training loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from cluster.agreement import refuse
from cluster.engine.engine import Engine
from cluster.preemption import StopFlag
from cluster.schedule import Schedule
from cluster.watch import Watch
from poselib.errors import InputError
from shards.loader import Batch


@dataclass(frozen=True)
class Step:
    """What an optimiser step tells.

    Attributes:
        number: steps done, with this one.
        loss: averaged over all its samples on all ranks.
        lr: the rate it was done at.
        last: whether the training ends here, at the schedule's end or by a signal.
        replaced: damaged samples in it whose places others took, on all ranks.
    """

    number: int
    loss: float
    lr: float
    last: bool
    replaced: int = 0


def train_loop(
    engine: Engine,
    batches: Iterator[Batch],
    loss_of: Callable[[Batch], torch.Tensor],
    schedule: Schedule,
    stop: StopFlag,
    start: int,
    after_step: Callable[[Step], None],
    watch: Watch,
) -> bool:
    """Train from step `start` to the schedule's end; True when it got there, False when a signal stopped it.

    Args:
        engine: backward and update.
        batches: this rank's micro-batches from `start` on.
        loss_of: runs the engine forward on a micro-batch and compares.
        schedule: rates and the last step.
        stop: asked between steps; every rank leaves at the same boundary.
        start: optimiser steps done before.
        after_step: logs, validates, saves; all ranks call it at the same steps.
        watch: told each stage.

    Raises:
        InputError: the loss is no longer finite; names the step. Elsewhere than on rank 0, SaidByMain.
    """
    engine.model.train()
    for number in range(start, schedule.steps):
        lr = schedule.lr(number)
        engine.set_lr(lr)
        total = torch.zeros(3, device=engine.device)
        for micro in range(engine.accumulation):
            watch.at("data", number + 1, micro)
            batch = next(batches)
            watch.at("forward", number + 1, micro)
            loss = loss_of(batch)
            watch.at("backward", number + 1, micro)
            engine.backward(loss)
            watch.at("optimizer", number + 1, micro)
            engine.step()
            total[0] += loss.detach() / engine.accumulation
            total[2] += len(batch.replaced)
        total[1] = float(stop.requested)
        mean_loss, stops, replaced = _over_ranks(total)
        if not mean_loss < float("inf"):
            problem = f"the loss of step {number + 1} is {mean_loss}; lower optimizer.lr or set optimizer.clip"
            refuse(InputError(problem))
        ended = number + 1 == schedule.steps
        after_step(Step(number + 1, mean_loss, lr, last=bool(stops) or ended, replaced=replaced))
        if stops:
            return ended
    return True


def _over_ranks(total: torch.Tensor) -> tuple[float, float, int]:
    """Mean over the ranks of the loss, whether any of them wants to stop, and the replaced samples of all: one small
    exchange per step."""
    world = 1
    if dist.is_initialized():
        dist.all_reduce(total)
        world = dist.get_world_size()
    loss, stops, replaced = total.tolist()
    return loss / world, stops, round(replaced)
