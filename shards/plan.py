"""What a build has to make: the parts, cut by the raw data alone, so that every builder finds the same ones."""

import hashlib
import json
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from poselib.errors import InputError
from shards.assemble import content_settings
from shards.building import BUILDING, hold_index
from shards.columns import Piece, Place, read_places, write_columns
from shards.readers import READERS
from shards.settings import BuildSettings
from shards.source import Index, Part, plain_key
from shards.workers import run_apart

INDEX_VERSION: Final = 1
SMALL_BYTES: Final = 4_000_000
"""Annotations of up to this size are read right here; a process of their own would take longer to start."""


def is_planned(settings: BuildSettings, layout: str) -> bool:
    """Whether `plan_parts` is a matter of a moment, with no index to be made."""
    index = READERS[layout].index
    return index is None or read_places(_index_folder(settings, layout, index)) is not None


def plan_parts(settings: BuildSettings, layout: str) -> list[Part]:
    """All parts in their final order. Those of an indexed layout carry a `Place`; the first builder makes the index.

    The folder must be held.

    Raises:
        InputError: the layout is broken as a whole, or two parts have one name, or an odd one.
    """
    index = READERS[layout].index
    if index:
        parts = [Part(name, place) for name, place in _places(settings, layout, index)]
    else:
        parts = READERS[layout].parts(settings)
    names = [part.name for part in parts]
    doubled = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if doubled:
        raise InputError(f"{settings.raw}: two recordings are both called {doubled[0]}; check metadata.xml's mapping")
    odd = [name for name in names if name != plain_key(name)]
    if odd:
        raise InputError(f"{settings.raw}: {odd[0]!r} cannot be a shard's name; rename the recording's files")
    return parts


def unpacked(layout: str, part: Part) -> Part:
    """A part as its reader takes it."""
    index = READERS[layout].index
    if index and isinstance(part.content, Place):
        return replace(part, content=index.unpack(part.content.plain, part.content.columns()))
    return part


def _places(settings: BuildSettings, layout: str, index: Index) -> list[tuple[str, Place]]:
    folder = _index_folder(settings, layout, index)
    places = read_places(folder)
    if places is None:
        with hold_index(settings.out):
            places = read_places(folder)  # another builder may have made it
            if places is None:
                _make_index(settings, layout, index, folder)
                places = read_places(folder)
    if places is None:
        raise InputError(f"{folder} cannot be read back; free space, and run again")
    return places


def _make_index(settings: BuildSettings, layout: str, index: Index, folder: Path) -> None:
    """Annotations into columns: in a process of its own, since the whole files are in its memory."""
    size, begun = sum(path.stat().st_size for path in index.files(settings)), time.monotonic()
    task = (settings, layout, folder)
    if size <= SMALL_BYTES:
        _write_index(task)
        return
    try:
        parts, peak = run_apart(_write_index, task)
    except BrokenProcessPool as error:
        raise InputError(
            f"the process that reads the annotations of {settings.raw} ({size / 2**20:.0f} MiB) was killed, perhaps"
            " for memory; run again with more of it"
        ) from error
    Console(stderr=True).print(
        f"{settings.raw}: {size / 2**20:.0f} MiB of annotations indexed, {parts} parts,"
        f" in {time.monotonic() - begun:.0f} s at a peak of {peak:.0f} MiB",
        soft_wrap=True,
        highlight=False,
    )


def _write_index(task: tuple[BuildSettings, str, Path]) -> int:
    """How many parts there are."""
    settings, layout, folder = task
    reader = READERS[layout]
    if reader.index is None:
        raise TypeError(f"{layout} is not indexed")
    parts = reader.parts(settings)
    write_columns(folder, [Piece(part.name, *reader.index.pack(part.content)) for part in parts])
    return len(parts)


def _index_folder(settings: BuildSettings, layout: str, index: Index) -> Path:
    """Where the index of the annotation files as they are now lies, for a set of these settings."""
    files = [(path, path.stat()) for path in index.files(settings)]
    state = [[path.name, str(path.parent.name), stat.st_size, stat.st_mtime_ns] for path, stat in files]
    content = content_settings(settings, READERS[layout].source, layout)
    name = hashlib.sha256(json.dumps([INDEX_VERSION, content, state]).encode()).hexdigest()[:16]
    return settings.out / BUILDING / f"index-{name}"
