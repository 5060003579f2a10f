"""Raw data -> shard set: the parts shared out to processes, the manifest once at the end.

A finished part is a tar with a record in `.building/`; a build that was interrupted takes those over and makes the
others. Only when every part is there, `samples.npy` and `manifest.json` appear and `.building/` goes.
"""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from poselib.errors import InputError
from shards.assemble import content_settings, write_manifest
from shards.atomic import TEMPORARY, write_whole
from shards.crop import crop_person
from shards.manifest import MANIFEST, ShardSet
from shards.readers import READERS, find_reader
from shards.records import Skipped, read_manifest
from shards.settings import BuildSettings
from shards.source import Part, Person
from shards.writer import PartRecord, Storable, read_record, write_part

BUILDING: Final = ".building"
SETTINGS: Final = "settings.json"
ALLOWED_SKIPS: Final = 0.01


def build(settings: BuildSettings) -> ShardSet:
    """Build a shard set, or finish one that was interrupted.

    Returns:
        the finished set, opened; for occluders see `shards.occluders.load_occluders` as well.

    Raises:
        InputError: unusable raw data or settings, another set or build in `out`, a full disk, damaged input under
            `strict`, or more than 1 % of it.
    """
    layout, reader = find_reader(settings)
    content = content_settings(settings, reader.source, layout)
    if (settings.out / MANIFEST).is_file():
        _check_same(read_manifest(settings.out / MANIFEST).settings, content, settings.out)
        shutil.rmtree(settings.out / BUILDING, ignore_errors=True)
        return ShardSet.open(settings.out, reader.kind)
    try:
        with _only_builder(settings.out):
            _start(settings.out, content)
            parts = reader.parts(settings)
            records = _build_parts(settings, layout, parts)
            _check_skips(settings.out, [skip for record in records for skip in record.skipped], records)
            write_manifest(settings, layout, reader, records)
            shutil.rmtree(settings.out / BUILDING)
            return ShardSet.open(settings.out, reader.kind)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"out: no space left for {settings.out}; finished parts stay: free some, run again"
            ) from error
        raise
    except BrokenProcessPool as error:
        raise InputError(
            "a worker was killed, perhaps for memory; finished parts stay: run again, workers: 1"
        ) from error


def build_part(settings: BuildSettings, layout: str, part: Part) -> PartRecord:
    """Read, crop and write one part; runs in a worker."""
    reader = READERS[layout]
    items = _stored(settings, reader.read(settings, part))
    return write_part(settings.out, settings.out / BUILDING, part.name, reader.kind, items)


def _stored(settings: BuildSettings, items: Iterator[Any]) -> Iterator[Storable | Skipped]:
    """People cropped; damage passed on, or raised under `strict`."""
    for item in items:
        if isinstance(item, Person):
            try:
                item = crop_person(item, settings)
            except ValueError as error:
                item = Skipped(item.names.picture, item.names.frame if item.names.camera else -1, str(error))
        if isinstance(item, Skipped) and settings.strict:
            raise InputError(f"{item} (strict: stopped at the first damaged sample)")
        yield item


def _build_parts(settings: BuildSettings, layout: str, parts: list[Part]) -> list[PartRecord]:
    """The records of all parts, in order; those that are not finished are made."""
    names = [part.name for part in parts]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"{settings.raw}: two recordings are both called {doubled[0]}; check metadata.xml's mapping")
    records: dict[str, PartRecord] = {}
    for name in names:
        record = read_record(settings.out, settings.out / BUILDING, name)
        if record and not record.skipped:  # damaged input may have been repaired in the meantime
            records[name] = record
    missing = [part for part in parts if part.name not in records]
    work = partial(build_part, settings, layout)
    with _progress() as progress:
        task = progress.add_task(f"{layout} -> {settings.out}", total=len(parts), completed=len(records))
        for name, record in _run(work, missing, settings.workers):
            records[name] = record
            progress.advance(task)
    return [records[name] for name in names]


def _run(work: Any, parts: list[Part], workers: int) -> Iterator[tuple[str, PartRecord]]:
    workers = min(workers or len(os.sched_getaffinity(0)), len(parts))
    if workers <= 1:
        for part in parts:
            yield part.name, work(part)
        return
    spawn = multiprocessing.get_context("spawn")
    stop, stopper = spawn.Pipe(duplex=False)
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(stop,)) as pool:
        futures: dict[Future[PartRecord], str] = {pool.submit(work, part): part.name for part in parts}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            stopper.close()
            pool.shutdown(cancel_futures=True)
            raise
    stopper.close()
    stop.close()


def _start_worker(stop: Connection) -> None:
    """Let a worker leave when the build stops or is killed: it would hang for ever, or write beside the next one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the build itself decides
    cv2.setNumThreads(1)  # a process per core is enough
    parent = multiprocessing.parent_process()

    def leave() -> None:
        wait([stop, parent.sentinel] if parent else [stop])
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def _start(out: Path, content: dict[str, Any]) -> None:
    """Claim the folder for these settings."""
    path = out / BUILDING / SETTINGS
    if path.is_file():
        _check_same(json.loads(path.read_bytes()), content, out)
    else:
        foreign = sorted(entry.name for entry in out.iterdir() if entry.name != BUILDING)
        if foreign:
            raise InputError(
                f"out: {out} is neither empty nor a shard set (it holds {foreign[0]}); take another folder"
            )
        write_whole(path, json.dumps(content).encode())


def _sweep(out: Path) -> None:
    """Remove what killed writers left half written."""
    for folder in (out, out / BUILDING):
        for left in folder.glob(TEMPORARY):
            left.unlink(missing_ok=True)


def _check_same(there: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    different = [key for key in now if there.get(key) != now[key]]
    if different:
        changes = ", ".join(f"{key} {there.get(key)} there, {now[key]} now" for key in different)
        raise InputError(f"out: {out} holds a set of other settings ({changes}); take another folder")


def _check_skips(out: Path, skipped: list[Skipped], records: list[PartRecord]) -> None:
    kept = sum(record.shard.samples for record in records if record.shard)
    lost = sum(skip.samples for skip in skipped)
    if not kept:
        first = f"; the first: {skipped[0]}" if skipped else ""
        raise InputError(f"raw: no usable sample found{first}")
    if lost > ALLOWED_SKIPS * (kept + lost):
        report = out / BUILDING / "skipped.txt"
        write_whole(report, "".join(f"{skip}\n" for skip in skipped).encode())
        raise InputError(
            f"raw: {lost} of {kept + lost} samples are damaged, more than {ALLOWED_SKIPS:.0%}: repair them, run again; "
            f"listed in {report}, the first: {skipped[0]}"
        )


@contextmanager
def _only_builder(out: Path) -> Iterator[None]:
    """Keep a second build away from the folder; a killed one's hold ends with it."""
    try:
        (out / BUILDING).mkdir(parents=True, exist_ok=True)
        stream = (out / BUILDING / "lock").open("w")
    except OSError as error:
        raise InputError(f"out: {out} cannot be written to ({error.strerror})") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"out: another build is at work in {out}; wait for it or take another folder") from error
        except OSError:  # a file system without locks
            pass
        _sweep(out)
        try:
            yield
        finally:
            _sweep(out)


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("parts"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
