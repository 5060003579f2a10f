"""`pose loader bench`: how fast each stage of the loader is by itself, what bounds it, and what would help.

Decoding, warping and pasting happen in one graph. So their times are differences between graphs: one that cuts crops of
8 x 8 pixels decodes and hardly warps; then whole crops; then whole crops with objects.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, cycle, islice
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from poselib.settings import ModelSettings
from shards.augment import Plan, plan
from shards.bench_settings import LoaderBenchSettings
from shards.damage import Reading, read_samples
from shards.loader import Source, load_batches, own
from shards.loader_settings import AugmentSettings, LoaderSettings
from shards.manifest import ShardSet
from shards.occlude import Bank, Layers, layers, most_occluders, open_bank
from shards.order import Draws, Order
from shards.pipeline import build_pipeline

_TINY: Final = 8
_BATCHES: Final = 16
_OCCLUDERS: Final = 0.75
"""The share of crops with objects where a bank is named and the settings paste none: the report's."""


@dataclass(frozen=True)
class Stage:
    """One stage by itself.

    Attributes:
        name: read, decode, warp, blend, or copy, which only a GPU needs.
        seconds: per picture; 0 where it is lost in the noise of the times that it is the difference of.
        megabytes: per picture, 10^6 bytes: what it takes in for read and decode, what it gives for the others.
    """

    name: str
    seconds: float
    megabytes: float


@dataclass(frozen=True, eq=False)
class Times:
    """Repeated measurements of the same thing: `n` s, two at least."""

    seconds: np.ndarray

    @property
    def mean(self) -> float:
        """Their mean, s."""
        return float(self.seconds.mean())

    def beyond(self, other: "Times") -> float:
        """How much longer these took than others, s; 0 where that is less than two of its standard errors."""
        error = math.hypot(*(each.std(ddof=1) / math.sqrt(len(each)) for each in (self.seconds, other.seconds)))
        difference = self.mean - other.mean
        return difference if difference > 2 * error else 0.0


def bench_loader(settings: LoaderBenchSettings) -> None:
    """Measure, and print a table and a sentence of advice."""
    threads = settings.threads or len(os.sched_getaffinity(0))
    on_gpu = settings.device == "gpu" or (settings.device == "auto" and torch.cuda.is_available())
    console = Console()
    with console.status("measuring each stage"):
        stages, whole = measure(settings, threads, on_gpu)
    slowest = max(stages, key=lambda stage: stage.seconds)
    table = Table("stage", "img/s", "MB/s", "share of the slowest's time")
    for stage in stages:
        if not stage.seconds:
            table.add_row(stage.name, "within noise", "", "")
            continue
        rate = 1 / stage.seconds
        table.add_row(
            stage.name, f"{rate:.0f}", f"{rate * stage.megabytes:.1f}", f"{stage.seconds / slowest.seconds:.0%}"
        )
    table.add_section()
    table.add_row(f"bound: {slowest.name}", f"{1 / slowest.seconds:.0f}", "", "")
    table.add_row("the whole loader", f"{1 / whole:.0f}", "", "")
    console.print(table)
    for line in (
        f"{settings.folder}: {threads} thread{'s' if threads > 1 else ''}, {'GPU' if on_gpu else 'CPU'},"
        f" crops of {settings.crop_width}x{settings.crop_height}, {settings.batch} at a time",
        advise(slowest.name, threads, len(os.sched_getaffinity(0)), on_gpu, torch.cuda.is_available()),
    ):
        console.print(line, soft_wrap=True, highlight=False)


def advise(slowest: str, threads: int, cores: int, on_gpu: bool, has_gpu: bool) -> str:
    """One sentence: what would make the slowest stage faster."""
    if slowest == "read":
        return "Reading is slowest: keep the set on a local disk, or let data.shard_window read it shard by shard."
    if slowest == "copy":
        return "Copying is slowest: smaller crops are all that helps; it is the memory's own speed."
    doing = {"decode": "Decoding", "warp": "Warping", "blend": "Pasting objects"}[slowest]
    if not on_gpu and threads < cores:
        return f"{doing} is slowest: add threads, loader.threads up to {cores} on this machine."
    if not on_gpu and has_gpu:
        return f"{doing} is slowest: use the GPU, loader.device gpu."
    if slowest == "blend":
        return "Pasting objects is slowest: paste fewer of them, or use a GPU."
    return f"{doing} is slowest: store smaller crops (stored_px of pose shards build), or take more cores or a GPU."


def measure(settings: LoaderBenchSettings, threads: int, on_gpu: bool) -> tuple[list[Stage], float]:
    """The stages, and the seconds per picture of the whole loader."""
    shards = ShardSet.open(settings.folder, storage=settings.storage)
    bank = open_bank(settings.voc, settings.storage) if settings.voc else None
    augment = settings.augment
    if bank and not augment.occluders:
        augment = replace(augment, occluders=_OCCLUDERS)
    plain = replace(augment, occluders=0.0)
    source = Source(shards, shards.select(), augment if bank else plain)
    model = ModelSettings(crop_width=settings.crop_width, crop_height=settings.crop_height)
    draws = list(islice(_draws(source, settings), _BATCHES))
    at_once = settings.batch

    def timed(act: Callable[[], object]) -> Times:
        return Times(_calls(act, settings.seconds) / at_once)

    order = _draws(source, settings)
    read_s = timed(lambda: read_samples([source], next(order), "error")).mean
    readings = [read_samples([source], each, "error") for each in draws]
    plans = {
        with_objects: [_plan(reading, chosen, settings, model, bank if with_objects else None) for reading in readings]
        for with_objects, chosen in ((False, plain), (True, augment))
        if bank or not with_objects
    }
    encoded = sum(jpeg.nbytes for reading in readings for jpeg in reading.jpegs) / 1e6 / (_BATCHES * at_once)
    crop = model.crop_width * model.crop_height * 3 / 1e6
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def graph_s(size: tuple[int, int], objects: bool) -> tuple[Times, Times]:
        most = most_occluders([augment]) if objects else 0
        batches = cycle(zip(readings, plans[objects], strict=True))

        def feed() -> tuple[list[np.ndarray], np.ndarray, Layers | None]:
            reading, planned = next(batches)
            pasted = layers(bank, planned.occlusions) if objects and bank else None
            return reading.jpegs, planned.stored_from_crop, pasted

        load = settings.hw_decoder_load
        with build_pipeline(feed, at_once, *size, "gpu" if on_gpu else "cpu", 0, threads, 2, most, load) as graph:
            graph.run()
            seconds = timed(graph.run)
            pictures = graph.run()
            return seconds, timed(lambda: own(pictures, device))

    whole_size = model.crop_width, model.crop_height
    decode_s, _ = graph_s((_TINY, _TINY), False)
    warped_s, copy_s = graph_s(whole_size, False)
    stages = [Stage("read", read_s, encoded), Stage("decode", decode_s.mean, encoded)]
    stages.append(Stage("warp", warped_s.beyond(decode_s), crop))
    if bank:
        stages.append(Stage("blend", graph_s(whole_size, True)[0].beyond(warped_s), crop))
    if on_gpu or device.type == "cuda":  # a CPU's graph writes where the training reads
        stages.append(Stage("copy", copy_s.mean, crop))
    loader = LoaderSettings("gpu" if on_gpu else "cpu", threads, hw_decoder_load=settings.hw_decoder_load)
    batches = load_batches([source], _draws(source, settings), at_once, model, settings.crop, loader, device, bank=bank)
    next(batches)
    return stages, timed(lambda: next(batches)).mean


def _draws(source: Source, settings: LoaderBenchSettings) -> Iterator[Draws]:
    """An endless order of the set."""
    size, window = len(source.rows), settings.shard_window
    shards = (source.shards.shard_sizes(source.rows),) if window else ()
    order = Order(0, (size,), (size,), settings.batch, window=window, shard_sizes=shards)
    return (order.micro_batch(index) for index in count())


def _plan(
    reading: Reading, augment: AugmentSettings, settings: LoaderBenchSettings, model: ModelSettings, bank: Bank | None
) -> Plan:
    return plan(reading.vectors, reading.draws, [augment], settings.crop, model, 0, bank)


def _calls(act: Callable[[], object], seconds: float) -> np.ndarray:
    """The times of successive calls, over about so many seconds: `n` s."""
    act()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return np.array(times)
