"""Shards to batches on the training device.

The way of a micro-batch:

    order    which samples: `Draws`, from the place in the run alone                 (shards.order)
    read     their JPEG bytes and numbers: one read each                            (shards.manifest)
    plan     crop matrices, pasted objects, colour gains, targets, weights           (shards.augment)
    DALI     decode, warp, paste: uint8 `b h w 3`                                    (shards.pipeline)
    Batch    pictures and targets on the device; gain and normalisation there        (here)

Reading and planning happen in the caller's thread, `prefetch` batches before DALI's result is asked for; decoding,
warping and pasting in DALI's threads. A loader has no position of its own: whoever resumes hands in the draws that are
left.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from poselib.errors import InputError
from poselib.settings import ModelSettings
from shards.augment import Plan, plan
from shards.manifest import ShardSet
from shards.occlude import Bank, Layers, layers, most_occluders
from shards.order import Draws
from shards.pipeline import Feed, build_pipeline
from shards.settings import AugmentSettings, CropSettings, LoaderSettings

_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, RGB, of values in [0, 1]
_STD = (0.229, 0.224, 0.225)


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
    """

    pictures: UInt8[torch.Tensor, "b h w 3"]
    gains: Float[torch.Tensor, "b 3"]
    targets: Float[torch.Tensor, "b j 3"]
    weights: Float[torch.Tensor, "b j 3"]
    draws: Draws
    plan: Plan

    @cached_property
    def inputs(self) -> Float[torch.Tensor, "b 3 h w"]:
        """What the network takes: colour gain, clamp, ImageNet normalisation; channels_last without a copy."""
        values = self.pictures.permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(numbers, device=values.device).view(1, 3, 1, 1) for numbers in (_MEAN, _STD))
        return ((values * self.gains[:, :, None, None]).clamp_(0, 1) - mean) / std


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

    However the iterator is left, at its end, early or by an exception, the graph's threads end with it.
    """
    pending: deque[tuple[Draws, Plan]] = deque()
    augment = [source.augment for source in sources]
    objects = most_occluders(augment)
    feed = _feed(sources, iter(draws), pending, lambda v, d: plan(v, d, augment, crop, model, seed, bank), bank)
    on_gpu = settings.device == "gpu" or (settings.device == "auto" and device.type == "cuda")
    graph = build_pipeline(
        feed,
        batch,
        model.crop_width,
        model.crop_height,
        "gpu" if on_gpu else "cpu",
        device.index or 0,
        settings.threads or threads,
        settings.prefetch,
        objects,
        settings.hw_decoder_load,
    )
    with graph:
        while True:
            try:
                pictures = graph.run()
            except StopIteration:
                return
            except RuntimeError as error:
                raise _undecodable(sources, pending[0][0], error) from error
            drawn, planned = pending.popleft()
            yield _to_batch(pictures, drawn, planned, device)


def _feed(
    sources: Sequence[Source],
    draws: Iterator[Draws],
    pending: "deque[tuple[Draws, Plan]]",
    make_plan: Callable[[np.ndarray, Draws], Plan],
    bank: Bank | None,
) -> Feed:
    """DALI's external source: reads and plans the next micro-batch and notes it in `pending`."""

    def feed() -> tuple[list[np.ndarray], np.ndarray, Layers | None]:
        drawn = next(draws)
        jpegs, vectors = read(sources, drawn)
        planned = make_plan(vectors, drawn)
        pending.append((drawn, planned))
        return jpegs, planned.stored_from_crop, layers(bank, planned.occlusions) if bank else None

    return feed


def read(sources: Sequence[Source], draws: Draws) -> tuple[list[np.ndarray], np.ndarray]:
    """JPEG bytes (uint8 `n` each) and numbers (float32 `b n`) of drawn samples, in their order."""
    jpegs: list[np.ndarray] = [np.empty(0, np.uint8)] * len(draws.sample)
    vectors: np.ndarray | None = None
    for number in np.unique(draws.source):
        places = np.flatnonzero(draws.source == number)
        source = sources[number]
        found, numbers = source.shards.read_bytes(source.rows[draws.sample[places]])
        if vectors is None:
            vectors = np.empty((len(jpegs), numbers.shape[1]), np.float32)
        vectors[places] = numbers
        for place, jpeg in zip(places, found, strict=True):
            jpegs[place] = jpeg
    assert vectors is not None
    return jpegs, vectors


def _undecodable(sources: Sequence[Source], draws: Draws, error: RuntimeError) -> InputError:
    """Which samples of a micro-batch are no pictures any more."""
    jpegs, _ = read(sources, draws)
    bad = [place for place, jpeg in enumerate(jpegs) if cv2.imdecode(jpeg, cv2.IMREAD_COLOR) is None]
    if not bad:
        return InputError(f"DALI failed: {str(error).strip().splitlines()[0][:200]}")
    source = sources[draws.source[bad[0]]]
    row = int(source.rows[draws.sample[bad[0]]])
    return InputError(
        f"{source.shards.folder}: sample {source.shards.read(row).key} is no JPEG any more;"
        f" `pose shards verify {source.shards.folder}` names all that is damaged"
    )


def _to_batch(pictures: Any, draws: Draws, planned: Plan, device: torch.device) -> Batch:
    """DALI's output and its plan on `device`."""
    gains, targets, weights = (
        torch.from_numpy(array).to(device, non_blocking=True)
        for array in (planned.gains, planned.targets, planned.weights)
    )
    return Batch(_own(pictures, device), gains, targets, weights, draws, planned)


def _own(pictures: Any, device: torch.device) -> UInt8[torch.Tensor, "b h w 3"]:
    """A copy of DALI's output on `device`: DALI writes to its memory again as soon as it is asked for more."""
    if not torch.from_dlpack(pictures.as_tensor()).is_cuda:
        return torch.from_dlpack(pictures.as_tensor()).to(device, copy=True)
    # On a stream of its own the copy does not queue behind the training's kernels, so it can be waited for.
    side = torch.cuda.Stream(device if device.type == "cuda" else None)
    with torch.cuda.stream(side):
        own = torch.from_dlpack(pictures.as_tensor()).to(device, copy=True)
    side.synchronize()
    if own.is_cuda:
        own.record_stream(torch.cuda.current_stream(device))
    return own
