"""The forms of a training step that take turns: the run's own, and the usual way.

Everything here but `cluster.bench` is of the tree that is measured, which may be an earlier revision's.
"""

import contextlib
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count, repeat
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cluster import loop
from cluster.bench.device import wait
from cluster.bench.reference import UsualTraining, usual_batches
from cluster.world import cores_per_rank
from poselib.losses import compute_loss
from poselib.model.network import PoseNetwork
from shards.normalise import normalise


class Ours:
    """The run's own engine, on made-up pictures or on the loader's.

    Args:
        run: what to build.
        world: this process' place.
        device: to train on.
        loader: take batches from the loader.

    Attributes:
        queue: batches made ahead.
        exchange_in_backward: whether the exchange has no time of its own.
        exchange_s: what exchanges took within `exchange_timed`.
    """

    def __init__(self, run: Any, world: Any, device: torch.device, loader: bool) -> None:
        self.run, self.world, self.device = run, world, device
        self.engine = _engine(run, world, device)
        self.engine.model.train()
        self._batches = self._loaded() if loader else _normalised(run, device)
        self._seeds = count()
        self.queue = run.loader.prefetch if loader else 0
        self.exchange_in_backward = run.engine.zero_stage > 0
        self.exchange_s = 0.0
        self._untold: deque[Any] = deque()

    def batch(self) -> tuple[torch.Tensor, ...]:
        """The next pictures, normalised; targets and weights."""
        return next(self._batches)

    def forward(self, images: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The loss; with a generator for each micro-batch, as training has it."""
        generator = torch.Generator(self.device).manual_seed(next(self._seeds))
        run = self.run
        return compute_loss(self.engine.forward, images, targets, weights, run.model, run.loss, generator)

    def backward(self, loss: torch.Tensor) -> None:
        """The gradient and its exchange."""
        self.engine.backward(loss)

    def update(self) -> None:
        """The optimiser's step."""
        self.engine.step()

    def agree(self, loss: torch.Tensor) -> None:
        """Loss, stop flag and replaced samples over all ranks; a GPU's are read when the next step is on its way, as
        training does where nothing is due."""
        total = torch.zeros(3, device=self.device)
        total[0] += loss.detach()
        if not hasattr(loop, "Told"):  # an earlier revision waits at every step
            if dist.is_initialized():
                dist.all_reduce(total)
            total.tolist()
            return
        self._untold.append(loop.Told(0, 0.0, total))
        while len(self._untold) > (self.device.type == "cuda"):
            self._untold.popleft().read()

    def notes(self) -> dict[str, float]:
        """Whether CUDA graphs were recorded where they are asked for, and how often the compiler has left them out."""
        if not getattr(self.run.engine, "cuda_graphs", False):  # an earlier revision knows none
            return {}
        from torch._dynamo.utils import counters

        found = counters["inductor"]
        recorded = found["cudagraph_recorded_non_static_inputs"] > 0  # the pictures are one
        return {"cudagraph_skips": float(found["cudagraph_skips"]), "cudagraphs": float(recorded)}

    def checkpoint(self) -> float:
        """Seconds of one checkpoint, written and synced."""
        from cluster.engine.checkpoint import Checkpoints
        from cluster.fence import Fence

        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder) / "checkpoints", self.world.rank, 1, Fence(Path(folder), 1))
            began = time.perf_counter()
            checkpoints.save(self.engine, 1, {})
            return time.perf_counter() - began

    @contextlib.contextmanager
    def exchange_timed(self) -> Iterator[None]:
        """Within it, `exchange_s` adds up what the exchanges of ZeRO stage 0 take."""
        untimed = self.engine.deepspeed.allreduce_gradients

        def timed(*arguments: Any, **words: Any) -> None:
            wait(self.device)
            began = time.perf_counter()
            untimed(*arguments, **words)
            wait(self.device)
            self.exchange_s += time.perf_counter() - began

        self.exchange_s, self.engine.deepspeed.allreduce_gradients = 0.0, timed
        try:
            yield
        finally:
            self.engine.deepspeed.allreduce_gradients = untimed

    def _loaded(self) -> Iterator[tuple[torch.Tensor, ...]]:
        from cluster.data import load_bank, open_data
        from shards.loader import load_batches

        run, world = self.run, self.world
        data = open_data(run)
        draws = (data.order.micro_batch(index) for index in count(world.rank, world.size))
        how = (run.batch.micro, run.model, run.crop, run.loader, self.device, run.seed, cores_per_rank(world))
        for batch in load_batches(data.train, draws, *how, load_bank(run, data)):
            yield batch.inputs, batch.targets, batch.weights


class Usual:
    """The usual way, see cluster/bench/reference.py; arguments and attributes as of `Ours`."""

    exchange_in_backward = True
    exchange_s = 0.0
    exchange_timed = contextlib.nullcontext

    def __init__(self, run: Any, world: Any, device: torch.device, loader: bool) -> None:
        self.device = device
        torch.manual_seed(run.seed)
        self.training = UsualTraining(run, device)
        self.training.model.train()
        self._batches: Iterator[tuple[torch.Tensor, ...]]
        self.queue = 0
        if not loader:
            images, *others = next(_normalised(run, device))  # once: its workers normalise
            self._batches = repeat((images.contiguous(), *others))
        else:
            self._folder = tempfile.TemporaryDirectory()
            made = usual_batches(Path(self._folder.name), run, cores_per_rank(world), device.type == "cuda")
            self.queue = made.num_workers * (made.prefetch_factor or 0)
            self._batches = iter(tuple(each.to(device, non_blocking=True) for each in batch) for batch in made)

    def batch(self) -> tuple[torch.Tensor, ...]:
        """The next pictures, normalised; targets and weights."""
        return next(self._batches)

    def forward(self, images: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The loss."""
        return self.training.loss(images, targets, weights)

    def backward(self, loss: torch.Tensor) -> None:
        """The gradient; DistributedDataParallel exchanges meanwhile."""
        loss.backward()

    def update(self) -> None:
        """The optimiser's step."""
        self.training.update()

    def agree(self, loss: torch.Tensor) -> None:
        """Nothing: the usual way looks at its loss now and then."""

    def notes(self) -> dict[str, float]:
        """Nothing."""
        return {}


FORMS: dict[str, Callable[..., Any]] = {"ours": Ours, "usual": Usual}


def made_up(run: Any, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Pictures uint8 `b h w 3`, gains `b 3`, targets and weights `b j 3`; the same for every form."""
    generator = torch.Generator().manual_seed(run.seed)
    batch, model = run.batch.micro, run.model
    size = (batch, model.crop_height, model.crop_width, 3)
    pictures = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    targets = torch.rand(batch, 17, 3, generator=generator) - 0.5
    return tuple(each.to(device) for each in (pictures, torch.ones(batch, 3), targets, torch.ones(batch, 17, 3)))


def _normalised(run: Any, device: torch.device) -> Iterator[tuple[torch.Tensor, ...]]:
    """The same pictures again and again, normalised each time."""
    pictures, gains, targets, weights = made_up(run, device)
    while True:
        yield normalise(pictures, gains), targets, weights


def _engine(run: Any, world: Any, device: torch.device) -> Any:
    """The run's engine around a new network."""
    from cluster.engine.engine import Engine, check_precision

    check_precision(run.engine.precision, device)
    torch.manual_seed(run.seed)
    network = PoseNetwork(run.model)
    try:
        from cluster.engine.levers import build_engine, check_levers
    except ImportError:  # an earlier revision
        optimizer = torch.optim.Adam(network.parameters(), lr=run.optimizer.lr)
        return Engine(network, optimizer, run.engine, world, run.batch.micro, 1, run.optimizer.clip, device)
    check_levers(run.engine, device)
    return build_engine(run, network, world, 1, device)
