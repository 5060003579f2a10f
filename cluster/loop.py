"""The training loop."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

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
    due: Callable[[int], bool],
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
        due: whether that does something with the state after a step, counted from 1. What other steps tell is read
            only when the next one is on its way, so that a GPU never waits for this process.
        watch: told each stage.

    Raises:
        InputError: the loss is no longer finite; names the step. Elsewhere than on rank 0, SaidByMain.
    """
    engine.model.train()
    untold: deque[Told] = deque()
    stops = False
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
        total[1].fill_(stop.requested)
        untold.append(Told(number + 1, lr, total))
        ended = number + 1 == schedule.steps
        while len(untold) > (0 if ended or stops or due(number + 1) else 1):
            step, asked = untold.popleft().read()
            stops = stops or asked
            after_step(replace(step, last=(stops or ended) and not untold))
        if stops:
            return ended
    return True


class Told:
    """What the ranks tell each other of a step, in one small exchange, on its way to this process.

    Args:
        number: steps done, with this one.
        lr: the rate it was done at.
        total: this rank's loss, whether it wants to stop, its replaced samples; becomes the sum over all ranks.
    """

    def __init__(self, number: int, lr: float, total: torch.Tensor) -> None:
        self.number, self.lr = number, lr
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        if self.world > 1:
            dist.all_reduce(total)
        self._there: torch.cuda.Event | None = None
        self._total = total
        if total.is_cuda:
            self._total = torch.empty(total.shape, pin_memory=True).copy_(total, non_blocking=True)
            self._there = torch.cuda.Event()
            self._there.record()

    def read(self) -> tuple[Step, bool]:
        """The step, and whether any rank wants to stop.

        Raises:
            InputError: the loss is no longer finite. Elsewhere than on rank 0, SaidByMain.
        """
        if self._there is not None:
            self._there.synchronize()
        loss, stops, replaced = self._total.tolist()
        step = Step(self.number, loss / self.world, self.lr, last=False, replaced=round(replaced))
        if not step.loss < float("inf"):
            problem = f"the loss of step {self.number} is {step.loss}; lower optimizer.lr or set optimizer.clip"
            refuse(InputError(problem))
        return step, bool(stops)
