"""One rank of a form: takes steps and times them."""

import time
from collections.abc import Callable
from typing import Any, Final

import torch
import torch.distributed as dist

from cluster.bench.device import begin_peak, ceilings, peak, wait
from cluster.bench.forms import FORMS
from cluster.config import construct
from cluster.engine.engine import choose_device, join_world
from cluster.settings import Run
from cluster.world import current_world

STAGES: Final = ("batch", "forward", "backward", "exchange", "optimizer", "agreement")
_WARM_UP: Final = {"cuda": 5, "cpu": 2}
"""Steps until times settle; a CUDA graph is recorded in the third."""


class Rank:
    """Takes steps of a form and times them.

    Args:
        spec: `yaml` of the run, `form` as in `FORMS`, and whether batches come from the `loader`.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        run = construct(Run, spec["yaml"], "pose bench")
        world = current_world()
        assert world is not None
        self.device = choose_device(run.engine.device, world.local_rank)
        join_world(world, run.engine, self.device)
        begin_peak(self.device)
        self._at_first = peak(self.device)
        self.form = FORMS[spec["form"]](run, world, self.device, spec["loader"])

    def warm_up(self) -> dict[str, float]:
        """The loss of the first step, and some more steps."""
        first = float(self.take_step().detach())
        for _ in range(_WARM_UP[self.device.type] - 1):
            self.take_step()
        return {"first_loss": first}

    def take_step(self, stage: Callable[..., Any] = lambda name, act, *arguments: act(*arguments)) -> torch.Tensor:
        """One step as training takes it; `stage` calls each stage, named, with its arguments. The loss."""
        form = self.form
        loss = stage("forward", form.forward, *stage("batch", form.batch))
        stage("backward", form.backward, loss)
        stage("optimizer", form.update)
        stage("agreement", form.agree, loss)
        return loss

    def steps(self, number: int) -> dict[str, float]:
        """Seconds and CPU seconds of a step, of so many, nothing waited for in between; last loss, and peak memory.

        What the loader made while others had their turn is thrown away first; then a turn is longer than its queue, so
        that it takes no more from it than was made meanwhile.
        """
        number = self._begin(number)
        begin_peak(self.device)
        began, worked = time.perf_counter(), time.process_time()
        for _ in range(number):
            loss = self.take_step()
        wait(self.device)
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
        memory = peak(self.device) - self._at_first
        return {"seconds": seconds / number, "cpu_seconds": cpu / number, "loss": float(loss.detach()), "bytes": memory}

    def stages(self, number: int) -> dict[str, float]:
        """Seconds per step of each stage, each waited for; no `exchange` where it is part of the backward pass."""
        number = self._begin(number)
        spent = dict.fromkeys(STAGES, 0.0)

        def timed(stage: str, act: Callable[..., Any], *arguments: Any) -> Any:
            began = time.perf_counter()
            answer = act(*arguments)
            wait(self.device)
            spent[stage] += (time.perf_counter() - began) / number
            return answer

        with self.form.exchange_timed():
            for _ in range(number):
                self.take_step(timed)
        if self.form.exchange_in_backward:
            del spent["exchange"]
        else:
            spent["exchange"] = self.form.exchange_s / number
            spent["backward"] -= spent["exchange"]
        return spent

    def notes(self) -> dict[str, float]:
        """What the form has to say besides."""
        return self.form.notes()

    def checkpoint(self) -> dict[str, float]:
        """Seconds of one checkpoint."""
        return {"seconds": self.form.checkpoint()}

    def ceilings(self) -> dict[str, float]:
        """See `cluster.bench.device.ceilings`."""
        return ceilings(self.device)

    def leave(self) -> None:
        """Part from the others."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def _begin(self, number: int) -> int:
        """Empty the loader's queue; the steps of the turn."""
        if self.form.queue:
            for _ in range(self.form.queue + 1):
                self.form.batch()
        wait(self.device)
        return max(number, 2 * self.form.queue)
