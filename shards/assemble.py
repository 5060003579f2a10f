"""The records of all parts -> `samples.npy` and `manifest.json`."""

import hashlib
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from shards.atomic import write_whole
from shards.manifest import MANIFEST, TABLE
from shards.readers.mpii_lists import find_list
from shards.records import Manifest, hash_set
from shards.sample import FORMAT_VERSION, NUMERIC
from shards.settings import BuildSettings
from shards.source import Reader, is_synthetic
from shards.table import CODED, merge_tables
from shards.writer import PartRecord, array_bytes

WITHOUT_EFFECT: Final = ("raw", "out", "workers", "strict", "share")
"""Settings that do not shape the content."""


def content_settings(settings: BuildSettings, source: str, layout: str) -> dict[str, Any]:
    """The settings that shape the content, as JSON values; a list file counts by what it says, not by its place.

    Raises:
        InputError: the list file cannot be read.
    """
    fields = {name: value for name, value in asdict(settings).items() if name not in WITHOUT_EFFECT}
    listed = find_list(settings) if settings.mpii_val_list is not None else None
    plain = {"source": source, "layout": layout, "subjects": sorted(settings.subjects)}
    return fields | plain | {"mpii_val_list": listed.sha256 if listed else ""}


def write_manifest(settings: BuildSettings, layout: str, reader: Reader, records: list[PartRecord]) -> Manifest:
    """Write the table, then the manifest, which makes the set a finished one."""
    filled = [(record.shard, (record.rows, record.names)) for record in records if record.shard]
    shards = tuple(shard for shard, _ in filled)
    rows, names = merge_tables([table for _, table in filled])
    table = array_bytes(rows)
    content = content_settings(settings, reader.source, layout)
    counts = {
        f"{column}s": dict(
            zip(names[column], np.bincount(rows[column], minlength=len(names[column])).tolist(), strict=True)
        )
        for column in CODED
    }
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        kind=reader.kind,
        source=reader.source,
        synthetic=is_synthetic(settings.raw),
        settings=content,
        lens=settings.lens,
        box=settings.box,
        cover_width=settings.cover_width,
        cover_height=settings.cover_height,
        stored_px=settings.stored_px,
        numeric={name: list(shape) for name, shape in NUMERIC.items()},
        samples=len(rows),
        subjects=tuple(names["subject"]),
        actions=tuple(names["action"]),
        cameras=tuple(names["camera"]),
        parts=tuple(names["part"]),
        counts=counts,
        shards=shards,
        index_sha256=hashlib.sha256(table).hexdigest(),
        skipped=tuple(skip for record in records for skip in record.skipped),
        known_faults=reader.faults(settings),
        split=reader.split(settings),
        set_hash=hash_set(content, shards),
    )
    write_whole(settings.out / TABLE, table)
    write_whole(settings.out / MANIFEST, manifest.to_json())
    return manifest
