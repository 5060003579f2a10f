"""Raw data -> shard set: the parts planned, shared out and made, the manifest once at the end.

Three steps, each of which may be run again, beside others, on any machine that sees the folders:

    plan      which parts there are, from the raw data alone (`shards.plan`)
    make      each part a tar with a record in `.building/`; finished ones are taken over
    finish    when every part is there, `samples.npy` and `manifest.json` appear and `.building/` goes

`build` does all three for the whole set; with `share: 3/16` it makes every 16th part, and the builder of the last
missing part finishes.
"""

import errno
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from poselib.errors import InputError
from shards.assemble import content_settings, write_manifest
from shards.atomic import write_whole
from shards.building import (
    BUILDING,
    PATIENCE_S,
    SETTINGS,
    FolderBusy,
    check_claim,
    check_same,
    claim,
    clear,
    hold_folder,
)
from shards.make import Unfinished, make_parts
from shards.manifest import MANIFEST, ShardSet
from shards.plan import is_planned, plan_parts
from shards.readers import READERS, find_reader
from shards.records import Skipped, read_manifest
from shards.settings import BuildSettings
from shards.source import Part
from shards.writer import PartRecord, read_record

ALLOWED_SKIPS: Final = 0.01
NAMED: Final = 5
"""How many missing parts a message names before it only counts."""


def build(settings: BuildSettings) -> ShardSet:
    """Build a shard set or a share of it, or finish one that was interrupted.

    Returns:
        the finished set, opened; for occluders see `shards.occluders.load_occluders` as well.

    Raises:
        InputError: unusable raw data or settings, another set or build in `out`, a full disk, damaged input under
            `strict`, or more than 1 % of it.
        Unfinished: the share is made, the set not yet complete.
    """
    layout, reader = find_reader(settings)
    content = content_settings(settings, reader.source, layout)
    with _plain_errors(settings.out):
        if not _is_finished(settings.out, content):
            check_claim(settings.out, content)
            (_build_share if settings.share else _build_all)(settings, layout, content)
        clear(settings.out)
    return ShardSet.open(settings.out, reader.kind)


def finish(settings: BuildSettings, shares: int = 0) -> ShardSet:
    """Finish a set of which others have made all parts, or say what is missing; makes none.

    Args:
        settings: as the builders had them.
        shares: into how many shares the parts were cut; messages name those that miss some.

    Raises:
        InputError: a builder is at work, nothing has been built here, or the damage is more than 1 %.
        Unfinished: names what is missing.
    """
    layout, reader = find_reader(settings)
    content = content_settings(settings, reader.source, layout)
    with _plain_errors(settings.out):
        if not _is_finished(settings.out, content):
            if not (settings.out / BUILDING / SETTINGS).is_file():
                raise InputError(f"out: {settings.out} holds no begun build")
            with hold_folder(settings.out, whole=True, patience_s=PATIENCE_S):
                parts = _claimed_parts(settings, layout, content)
                missing = missing_parts(settings, parts)
                if missing:
                    raise Unfinished(_missing_line(settings, parts, missing, shares))
                _finish(settings, layout, parts)
        clear(settings.out)
    return ShardSet.open(settings.out, reader.kind)


def open_shares(settings: BuildSettings, shares: int) -> list[int]:
    """Which of so many shares, counted from 1, still miss parts; none of a finished set.

    The folder is claimed, unless large annotations are not indexed yet: all shares count as open then, and indexing
    and the claim are theirs.

    Raises:
        InputError: as `build`.
    """
    layout, reader = find_reader(settings)
    content = content_settings(settings, reader.source, layout)
    with _plain_errors(settings.out):
        if _is_finished(settings.out, content):
            return []
        check_claim(settings.out, content)
        with hold_folder(settings.out, whole=False, patience_s=PATIENCE_S):
            if not is_planned(settings, layout):
                return list(range(1, shares + 1))
            parts = _claimed_parts(settings, layout, content)
            missing = set(missing_parts(settings, parts))
    return [number + 1 for number in range(shares) if any(part.name in missing for part in parts[number::shares])]


def missing_parts(settings: BuildSettings, parts: list[Part]) -> list[str]:
    """Names of the parts without a whole record."""
    records = settings.out / BUILDING
    return [part.name for part in parts if read_record(settings.out, records, part.name) is None]


def _claimed_parts(settings: BuildSettings, layout: str, content: dict[str, Any]) -> list[Part]:
    """All parts, in a folder that is now one for this set. A plan that is refused claims nothing."""
    check_claim(settings.out, content)
    parts = plan_parts(settings, layout)
    claim(settings.out, content)
    return parts


def _build_all(settings: BuildSettings, layout: str, content: dict[str, Any]) -> None:
    with hold_folder(settings.out, whole=True):
        if not _is_finished(settings.out, content):
            parts = _claimed_parts(settings, layout, content)
            make_parts(settings, layout, parts)
            _finish(settings, layout, parts)


def _build_share(settings: BuildSettings, layout: str, content: dict[str, Any]) -> None:
    """Make the parts of the share, then finish if no other is missing.

    Of several builders that end at once, the last to look finds the folder free.
    """
    number, of = map(int, settings.share.split("/"))
    with hold_folder(settings.out, whole=False, patience_s=PATIENCE_S):
        if _is_finished(settings.out, content):
            return
        parts = _claimed_parts(settings, layout, content)
        make_parts(settings, layout, parts[number - 1 :: of])  # neighbours are alike, so they go to different shares
    missing = [] if _is_finished(settings.out, content) else missing_parts(settings, parts)
    if missing:
        raise Unfinished(
            f"{settings.out}: share {settings.share} is made; {len(missing)} of {len(parts)} parts are still missing,"
            " the builder of the last one finishes the set"
        )
    try:
        with hold_folder(settings.out, whole=True):
            if not _is_finished(settings.out, content):
                _finish(settings, layout, parts)
    except FolderBusy as busy:
        raise Unfinished(f"{settings.out}: share {settings.share} is made; another builder finishes the set") from busy


def _finish(settings: BuildSettings, layout: str, parts: list[Part]) -> None:
    """Write table and manifest; all parts are there and the folder is held whole."""
    records = [read_record(settings.out, settings.out / BUILDING, part.name) for part in parts]
    whole = [record for record in records if record is not None]
    if len(whole) < len(parts):
        raise Unfinished(_missing_line(settings, parts, missing_parts(settings, parts), 0))
    _check_skips(settings.out, [skip for record in whole for skip in record.skipped], whole)
    write_manifest(settings, layout, READERS[layout], whole)


def _missing_line(settings: BuildSettings, parts: list[Part], missing: list[str], shares: int) -> str:
    named = ", ".join(missing[:NAMED]) + (f" and {len(missing) - NAMED} more" if len(missing) > NAMED else "")
    line = f"{settings.out}: {len(missing)} of {len(parts)} parts are missing ({named})"
    lost = [n + 1 for n in range(shares) if any(part.name in missing for part in parts[n::shares])]
    if not lost:
        return f"{line}; run again"
    rest = f", and of {', '.join(f'{number}/{shares}' for number in lost[1:])}" if lost[1:] else ""
    return (
        f"{line}; submit again to have them made, or: pose shards build {settings.raw} {settings.out}"
        f" --share {lost[0]}/{shares}{rest}"
    )


def _is_finished(out: Path, content: dict[str, Any]) -> bool:
    """Whether the set is there already.

    Raises:
        InputError: one of other settings is.
    """
    if not (out / MANIFEST).is_file():
        return False
    check_same(read_manifest(out / MANIFEST).settings, content, out)
    return True


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
def _plain_errors(out: Path) -> Iterator[None]:
    """A full disk and a killed worker as one line each."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"out: no space left for {out}; finished parts stay: free some, run again") from error
        raise
    except BrokenProcessPool as error:
        raise InputError(
            "a worker was killed, perhaps for memory; finished parts stay: run again, workers: 1"
        ) from error
