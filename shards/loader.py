"""Shards to batches on the training device.

The way of a micro-batch:

    order    which samples: `Draws`, from the place in the run alone                 (shards.order)
    read     their JPEG bytes and numbers: one read each                   (shards.damage, .manifest)
    plan     crop matrices, pasted objects, colour gains, targets, weights           (shards.augment)
    DALI     decode, warp, paste: uint8 `b h w 3`                                    (shards.pipeline)
    Batch    pictures and targets on the device; gain and normalisation there        (here)

A damaged sample stops the run, or another one takes its place (shards.damage). A picture that only DALI finds to be
damaged stops the graph: then a new graph starts over with the micro-batches that were not handed out yet.

Reading and planning happen in the caller's thread, `prefetch` batches before DALI's result is asked for; decoding,
warping and pasting in the graph's threads. A loader has no position of its own: whoever resumes hands in the draws that
are left.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from poselib.errors import InputError
from poselib.settings import ModelSettings
from shards.augment import Plan, plan
from shards.damage import Policy, Reading, Spot, read_samples, undecodable
from shards.loader_settings import AugmentSettings, CropSettings, LoaderSettings
from shards.manifest import DamagedSample, ShardSet
from shards.normalise import normalise
from shards.occlude import Bank, Layers, layers, most_occluders
from shards.order import Draws
from shards.pipeline import Graph, build_pipeline


@dataclass(frozen=True, eq=False)
class Source:
    """Some samples of a shard set.

    Attributes:
        shards: the set.
        rows: int64 `n`, which of its samples.
        augment: what happens to them in training.
    """

    shards: ShardSet
    rows: np.ndarray
    augment: AugmentSettings


@dataclass(frozen=True, eq=False)
class Batch:
    """A micro-batch on the training device.

    Attributes:
        pictures: uint8 `b h w 3`, RGB crops as they are stored.
        gains: `b 3`, factor of each colour channel.
        targets: `b j 3`, u v z of the volume.
        weights: `b j 3`, 0 where a coordinate is not supervised.
        draws: where the samples come from.
        plan: how they were cut, on the host.
        replaced: a line for each damaged sample whose place another one has taken.
    """

    pictures: UInt8[torch.Tensor, "b h w 3"]
    gains: Float[torch.Tensor, "b 3"]
    targets: Float[torch.Tensor, "b j 3"]
    weights: Float[torch.Tensor, "b j 3"]
    draws: Draws
    plan: Plan
    replaced: tuple[str, ...] = ()

    @cached_property
    def inputs(self) -> Float[torch.Tensor, "b 3 h w"]:
        """What the network takes: colour gain, clamp, ImageNet normalisation; channels_last without a copy."""
        return normalise(self.pictures, self.gains)


def load_batches(
    sources: Sequence[Source],
    draws: Iterable[Draws],
    batch: int,
    model: ModelSettings,
    crop: CropSettings,
    settings: LoaderSettings,
    device: torch.device,
    seed: int = 0,
    threads: int = 1,
    bank: Bank | None = None,
) -> Iterator[Batch]:
    """The batches of `draws`, in their order.

    Args:
        sources: what the draws' `source` and `sample` count into.
        draws: micro-batches; may be endless.
        batch: largest micro-batch.
        model: size of the crop, and the volume.
        crop: how crops are cut.
        settings: device of the graph, threads, prefetching.
        device: of the training.
        seed: of the augmentation.
        threads: CPU threads where the settings leave them open.
        bank: objects to paste, where a source's settings ask for them.

    Raises:
        DamagedSample: a sample is damaged, and the settings do not skip it.
        InputError: all samples of a micro-batch are, or a file cannot be read, however often it is tried.

    However the iterator is left, at its end, early or by an exception, the graph's threads end with it.
    """
    augment = [source.augment for source in sources]
    on_gpu = settings.device == "gpu" or (settings.device == "auto" and device.type == "cuda")

    def start(kitchen: Kitchen) -> Graph:
        return build_pipeline(
            kitchen.feed,
            batch,
            model.crop_width,
            model.crop_height,
            "gpu" if on_gpu else "cpu",
            device.index or 0,
            settings.threads or threads,
            settings.prefetch,
            most_occluders(augment),
            settings.hw_decoder_load,
        )

    def make_plan(vectors: np.ndarray, drawn: Draws) -> Plan:
        return plan(vectors, drawn, augment, crop, model, seed, bank)

    kitchen = Kitchen(sources, iter(draws), make_plan, bank, settings.damaged)
    while True:
        with start(kitchen) as graph:
            while True:
                try:
                    pictures = graph.run()
                except StopIteration:
                    return
                except RuntimeError as error:
                    kitchen.sort_out(error)
                    break
                yield _to_batch(pictures, kitchen.pending.popleft(), device)


@dataclass(frozen=True, eq=False)
class _Made:
    """A micro-batch that DALI works on: what was asked for, what was read, and its plan."""

    asked: Draws
    reading: Reading
    plan: Plan


class Kitchen:
    """Reads and plans the micro-batches that DALI asks for, and keeps them until their pictures are handed out."""

    def __init__(
        self,
        sources: Sequence[Source],
        draws: Iterator[Draws],
        make_plan: Callable[[np.ndarray, Draws], Plan],
        bank: Bank | None,
        policy: Policy,
    ) -> None:
        self.pending: deque[_Made] = deque()
        self._sources, self._draws, self._make_plan, self._bank = sources, draws, make_plan, bank
        self._policy = policy
        self._known: dict[Spot, str] = {}

    def feed(self) -> tuple[list[np.ndarray], np.ndarray, Layers | None]:
        """DALI's external source: the next micro-batch."""
        asked = next(self._draws)
        reading = read_samples(self._sources, asked, self._policy, self._known)
        planned = self._make_plan(reading.vectors, reading.draws)
        self.pending.append(_Made(asked, reading, planned))
        return reading.jpegs, planned.stored_from_crop, layers(self._bank, planned.occlusions) if self._bank else None

    def sort_out(self, error: RuntimeError) -> None:
        """Note the pictures that made DALI fail, and start over with what was not handed out.

        Raises:
            InputError: under `error`, or where no picture was at fault.
        """
        bad: dict[Spot, str] = {}
        for made in self.pending:
            bad |= undecodable(self._sources, made.reading)
        if not bad:
            raise InputError(f"DALI failed: {str(error).strip().splitlines()[0][:200]}") from error
        if self._policy == "error":
            raise DamagedSample(next(iter(bad.values()))) from error
        self._known |= bad
        self._draws = chain([made.asked for made in self.pending], self._draws)
        self.pending.clear()


def read(sources: Sequence[Source], draws: Draws) -> tuple[list[np.ndarray], np.ndarray]:
    """JPEG bytes (uint8 `n` each) and numbers (float32 `b n`) of drawn samples, in their order."""
    reading = read_samples(sources, draws, "error")
    return reading.jpegs, reading.vectors


def _to_batch(pictures: Any, made: _Made, device: torch.device) -> Batch:
    """DALI's output and its plan on `device`."""
    planned = made.plan
    gains, targets, weights = (
        torch.from_numpy(array).to(device, non_blocking=True)
        for array in (planned.gains, planned.targets, planned.weights)
    )
    drawn, replaced = made.reading.draws, made.reading.replaced
    return Batch(own(pictures, device), gains, targets, weights, drawn, planned, replaced)


def own(pictures: Any, device: torch.device) -> UInt8[torch.Tensor, "b h w 3"]:
    """The graph's crops on `device`: as they are from the CPU, and a copy from the GPU, for DALI writes to its memory
    again as soon as it is asked for more."""
    if isinstance(pictures, np.ndarray):
        crops = torch.from_numpy(pictures)
        # Only from pinned memory is a large copy not waited for by the host.
        return crops.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else crops.to(device)
    side = _side_stream(device if device.type == "cuda" else None)
    with torch.cuda.stream(side):
        own = torch.from_dlpack(pictures.as_tensor()).to(device, copy=True)
    side.synchronize()
    if own.is_cuda:
        own.record_stream(torch.cuda.current_stream(device))
    return own


@cache
def _side_stream(device: torch.device | None) -> torch.cuda.Stream:
    """On a stream of its own a copy does not queue behind the training's kernels, so it can be waited for; on one for
    all batches it finds the memory of earlier ones again."""
    return torch.cuda.Stream(device)
