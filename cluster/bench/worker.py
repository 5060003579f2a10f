"""A process that holds one form of a training and takes its steps when told to, one JSON line for each.

It is run by its path, with the tree to be measured in PYTHONPATH, so it can measure a revision that does not have it:
of ours it imports at first what any revision has. Answers go where stdout went; what libraries print goes to stderr.
"""

import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


class Ours:
    """The run's own engine, on made-up pictures or on the loader's.

    Args:
        run: what to build.
        world: this process' place.
        device: to train on.
        loader: take batches from the loader.
    """

    def __init__(self, run: Any, world: Any, device: torch.device, loader: bool) -> None:
        from poselib.losses import compute_loss
        from poselib.model.network import PoseNetwork

        self.run, self.world, self.device, self._compute_loss = run, world, device, compute_loss
        torch.manual_seed(run.seed)
        network = PoseNetwork(run.model)
        try:
            from cluster.engine.levers import build_engine, check_levers
        except ImportError:  # an earlier revision
            from cluster.engine.engine import Engine

            optimizer = torch.optim.Adam(network.parameters(), lr=run.optimizer.lr)
            self.engine = Engine(network, optimizer, run.engine, world, run.batch.micro, 1, run.optimizer.clip, device)
        else:
            check_levers(run.engine, device)
            self.engine = build_engine(run, network, world, 1, device)
        self.engine.model.train()
        self._batches = self._loaded() if loader else self._made_up()
        self.exchange_s = 0.0
        self._time_exchange()

    def batch(self) -> tuple[torch.Tensor, ...]:
        """The next pictures, normalised; targets and weights."""
        return next(self._batches)

    def forward(self, images: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The loss."""
        return self._compute_loss(self.engine.forward, images, targets, weights, self.run.model, self.run.loss)

    def backward(self, loss: torch.Tensor) -> None:
        """The gradient, and at ZeRO stage 0 its exchange."""
        self.engine.backward(loss)

    def update(self) -> None:
        """The optimiser's step."""
        self.engine.step()

    def checkpoint(self) -> float:
        """Seconds of one checkpoint, written and synced."""
        from cluster.engine.checkpoint import Checkpoints
        from cluster.fence import Fence

        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder) / "checkpoints", self.world.rank, 1, Fence(Path(folder), 1))
            began = time.perf_counter()
            checkpoints.save(self.engine, 1, {})
            return time.perf_counter() - began

    def _made_up(self) -> Iterator[tuple[torch.Tensor, ...]]:
        from shards.normalise import normalise

        pictures, gains, targets, weights = made_up(self.run, self.device)
        while True:
            yield normalise(pictures, gains), targets, weights

    def _loaded(self) -> Iterator[tuple[torch.Tensor, ...]]:
        from cluster.data import load_bank, open_data
        from cluster.world import cores_per_rank
        from shards.loader import load_batches

        run, world = self.run, self.world
        data = open_data(run)
        draws = (data.order.micro_batch(index) for index in count(world.rank, world.size))
        how = (run.batch.micro, run.model, run.crop, run.loader, self.device, run.seed, cores_per_rank(world))
        for batch in load_batches(data.train, draws, *how, load_bank(run, data)):
            yield batch.inputs, batch.targets, batch.weights

    def _time_exchange(self) -> None:
        """Have the exchange of ZeRO stage 0 tell its time; the other stages' is part of the backward pass."""
        inner = self.engine.deepspeed.allreduce_gradients

        def timed(*arguments: Any, **words: Any) -> None:
            wait(self.device)
            began = time.perf_counter()
            inner(*arguments, **words)
            wait(self.device)
            self.exchange_s += time.perf_counter() - began

        self._timed, self._untimed = timed, inner

    @contextlib.contextmanager
    def exchange_timed(self) -> Iterator[None]:
        """Within it, `exchange_s` adds up what exchanges take."""
        self.exchange_s, self.engine.deepspeed.allreduce_gradients = 0.0, self._timed
        try:
            yield
        finally:
            self.engine.deepspeed.allreduce_gradients = self._untimed


class Usual:
    """The usual way, see cluster/bench/reference.py."""

    exchange_s = 0.0

    def __init__(self, run: Any, world: Any, device: torch.device, loader: bool) -> None:
        from cluster.bench.reference import UsualTraining, usual_batches
        from cluster.world import cores_per_rank

        self.run, self.device = run, device
        torch.manual_seed(run.seed)
        self.training = UsualTraining(run, device)
        self.training.model.train()
        self._folder = tempfile.TemporaryDirectory() if loader else None
        self._loader = usual_batches(Path(self._folder.name), run, cores_per_rank(world)) if self._folder else None
        self._batches = self._loaded() if self._loader else self._made_up()

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

    exchange_timed = contextlib.nullcontext

    def _loaded(self) -> Iterator[tuple[torch.Tensor, ...]]:
        while True:
            for batch in self._loader or ():
                yield tuple(each.to(self.device) for each in batch)

    def _made_up(self) -> Iterator[tuple[torch.Tensor, ...]]:
        from shards.normalise import normalise

        pictures, gains, targets, weights = made_up(self.run, self.device)
        images = normalise(pictures, gains).contiguous()
        while True:
            yield images, targets, weights


FORMS: dict[str, Callable[..., Any]] = {"ours": Ours, "usual": Usual}


class Rank:
    """Takes steps of a form and times them."""

    def __init__(self, spec: dict[str, Any]) -> None:
        from cluster.config import construct
        from cluster.engine.engine import choose_device, join_world
        from cluster.settings import Run
        from cluster.world import current_world

        run = construct(Run, spec["yaml"], "pose bench")
        world = current_world()
        assert world is not None
        self.device = choose_device(run.engine.device, world.local_rank)
        join_world(world, run.engine, self.device)
        self._at_first = resident(self.device, reset=True)
        self.form = FORMS[spec["form"]](run, world, self.device, spec["loader"])

    def steps(self, number: int) -> dict[str, float]:
        """Seconds and CPU seconds of a step, of so many, nothing waited for in between; the last loss."""
        wait(self.device)
        began, worked = time.perf_counter(), time.process_time()
        for _ in range(number):
            loss = self.form.forward(*self.form.batch())
            self.form.backward(loss)
            self.form.update()
        wait(self.device)
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
        return {"seconds": seconds / number, "cpu_seconds": cpu / number, "loss": float(loss.detach())}

    def stages(self, number: int) -> dict[str, float]:
        """Seconds per step of each stage, each waited for."""
        spent = dict.fromkeys(("batch", "forward", "backward", "exchange", "optimizer"), 0.0)

        def timed(stage: str, act: Callable[..., Any], *arguments: Any) -> Any:
            began = time.perf_counter()
            answer = act(*arguments)
            wait(self.device)
            spent[stage] += (time.perf_counter() - began) / number
            return answer

        wait(self.device)
        with self.form.exchange_timed():
            for _ in range(number):
                loss = timed("forward", self.form.forward, *timed("batch", self.form.batch))
                timed("backward", self.form.backward, loss)
                timed("optimizer", self.form.update)
        spent["exchange"] = self.form.exchange_s / number
        spent["backward"] -= spent["exchange"]
        return spent

    def memory(self) -> dict[str, float]:
        """Bytes at the peak, beyond those before the network was built."""
        return {"bytes": resident(self.device) - self._at_first}

    def checkpoint(self) -> dict[str, float]:
        """Seconds of one checkpoint."""
        return {"seconds": self.form.checkpoint()}

    def ceilings(self) -> dict[str, float]:
        """What this device can do: FLOP/s of large matrix products in fp32 and bf16, bytes/s of a copy."""
        cuda = self.device.type == "cuda"
        side, room = (8192, 2**30) if cuda else (1024, 2**26)
        found: dict[str, float] = {}
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            a, b = (torch.randn(side, side, device=self.device).to(dtype) for _ in range(2))
            found[name] = 2 * side**3 / self._best(torch.mm, a, b)
        source = torch.zeros(room, dtype=torch.uint8, device=self.device)
        target = torch.zeros_like(source)
        return found | {"bytes": 2 * room / self._best(target.copy_, source)}

    def _best(self, act: Callable[..., Any], *arguments: Any) -> float:
        times = []
        for _ in range(12):
            began = time.perf_counter()
            act(*arguments)
            wait(self.device)
            times.append(time.perf_counter() - began)
        return min(times[2:])


def made_up(run: Any, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Pictures uint8 `b h w 3`, gains `b 3`, targets and weights `b j 3`; the same for every form."""
    generator = torch.Generator().manual_seed(run.seed)
    batch, model = run.batch.micro, run.model
    size = (batch, model.crop_height, model.crop_width, 3)
    pictures = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    targets = torch.rand(batch, 17, 3, generator=generator) - 0.5
    return tuple(each.to(device) for each in (pictures, torch.ones(batch, 3), targets, torch.ones(batch, 17, 3)))


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def resident(device: torch.device, reset: bool = False) -> float:
    """Bytes at the peak; of the device's allocator, or resident ones on the CPU."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Answer each line until there is none left."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    spec = json.loads(sys.argv[1])
    rank: Rank | None = None
    for line in sys.stdin:
        try:
            rank = rank or Rank(spec)
            what, *arguments = json.loads(line)
            answer = getattr(rank, what)(*arguments) if what != "start" else {}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            if type(error).__name__ in ("InputError", "SettingsError"):
                answer = {"error": str(error).splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
