"""The parts of a set, each made by one process: read, cropped, written, and recorded last."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from poselib.errors import InputError
from shards.building import BUILDING, hold_part, part_maker
from shards.crop import crop_person
from shards.plan import unpacked
from shards.readers import READERS
from shards.records import Skipped
from shards.settings import BuildSettings
from shards.source import LONGEST_KEY, Part, Person
from shards.workers import peak_mib, run
from shards.writer import PartRecord, Storable, read_record, write_part


class Unfinished(InputError):
    """This builder has done its work, and parts of others are still missing."""


@dataclass(frozen=True, eq=False)
class Made:
    """What became of a part.

    Attributes:
        name: of the part.
        record: None where another process is making it.
        peak_mib: the most memory that this process has ever held.
    """

    name: str
    record: PartRecord | None
    peak_mib: float


def make_parts(settings: BuildSettings, layout: str, parts: list[Part]) -> None:
    """Make what is missing. Parts that another builder has begun are left to it."""
    missing = [part for part in parts if sound_record(settings, part.name) is None]
    left, peak = [], 0.0
    workers = settings.workers or len(os.sched_getaffinity(0))
    with _progress() as progress:
        share = f", share {settings.share}" if settings.share else ""
        task = progress.add_task(
            f"{layout} -> {settings.out}{share}", total=len(parts), completed=len(parts) - len(missing)
        )
        for made in run(partial(make_part, settings, layout), missing, workers):
            left += [made.name] if made.record is None else []
            peak = max(peak, made.peak_mib)
            progress.advance(task)
    if missing:
        Console(stderr=True).print(
            f"{len(missing) - len(left)} parts made; of {min(workers, len(missing))} processes the largest took"
            f" {peak:.0f} MiB",
            soft_wrap=True,
            highlight=False,
        )
    if left:
        raise Unfinished(
            f"{settings.out}: {len(left)} parts are being made by others ({left[0]} by"
            f" {part_maker(settings.out, left[0])}); when they have ended, run again"
        )


def make_part(settings: BuildSettings, layout: str, part: Part) -> Made:
    """Read, crop and write one part, unless another process does; runs in a worker."""
    reader = READERS[layout]
    with hold_part(settings.out, part.name) as held:
        record = sound_record(settings, part.name) if held else None  # it may have been made since the plan
        if held and record is None:
            items = _stored(settings, reader.read(settings, unpacked(layout, part)))
            record = write_part(settings.out, settings.out / BUILDING, part.name, reader.kind, items)
    return Made(part.name, record, peak_mib())


def sound_record(settings: BuildSettings, name: str) -> PartRecord | None:
    """The record of a finished part; damaged input may have been repaired in the meantime, so that is read again."""
    record = read_record(settings.out, settings.out / BUILDING, name)
    return record if record and not record.skipped else None


def _stored(settings: BuildSettings, items: Iterator[Any]) -> Iterator[Storable | Skipped]:
    """People cropped; damage passed on, or raised under `strict`. Of samples with one key the first is taken."""
    taken: set[str] = set()
    for item in items:
        fault = "" if isinstance(item, Skipped) else _key_fault(item.key, taken)
        if fault:
            item = Skipped(item.names.picture, item.names.frame if item.names.camera else -1, fault)
        if isinstance(item, Person):
            try:
                item = crop_person(item, settings)
            except ValueError as error:
                item = Skipped(item.names.picture, item.names.frame if item.names.camera else -1, str(error))
        if isinstance(item, Skipped) and settings.strict:
            raise InputError(f"{item} (strict: stopped at the first damaged sample)")
        yield item


def _key_fault(key: str, taken: set[str]) -> str:
    """Why a sample cannot have this key, or an empty text; it is taken then."""
    if key in taken:
        return "it is annotated twice"
    taken.add(key)
    return "" if len(key) <= LONGEST_KEY else "its name is too long for a shard"


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("parts"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
