"""Samples -> one tar, its DALI index, its rows, and last the record that declares it finished."""

import dataclasses
import hashlib
import io
import json
import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shards.atomic import write_whole, written_whole
from shards.records import Shard, Skipped
from shards.sample import Names
from shards.table import read_table

if TYPE_CHECKING:
    from webdataset.writer import TarWriter


class Storable(Protocol):
    """What can become a sample of a shard."""

    @property
    def names(self) -> Names:
        """What the sample is called."""

    def members(self) -> dict[str, object]:
        """The tar members by ending, besides `__key__`."""


@dataclass(frozen=True, eq=False)
class PartRecord:
    """What is known of a finished part.

    Attributes:
        shard: its tar, or None where the part had no usable sample.
        skipped: damaged input.
        rows: its rows of `samples.npy`, with codes into `names`.
        names: the lists behind the codes.
    """

    shard: Shard | None
    skipped: tuple[Skipped, ...]
    rows: np.ndarray
    names: dict[str, list[str]]


def write_part(folder: Path, records: Path, name: str, kind: str, items: Iterable[Storable | Skipped]) -> PartRecord:
    """Write one part as `folder/NAME.tar` with `NAME.idx`, and its record into the folder `records`.

    The bytes depend on the samples alone. The record comes last: a tar without one is written again.
    """
    skipped: list[Skipped] = []
    path = folder / f"{name}.tar"
    names = _write_tar(path, _sorted_out(items, skipped))
    shard, rows = None, np.zeros(0)
    lists: dict[str, list[str]] = {}
    if names:
        rows, lists, index = read_table(path, kind, names)
        write_whole(path.with_suffix(".idx"), index.encode())
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        shard = Shard(path.name, len(names), path.stat().st_size, digest)
    record = PartRecord(shard, tuple(skipped), rows, lists)
    write_whole(records / f"{name}.npy", array_bytes(rows))
    fields = {
        "shard": dataclasses.asdict(shard) if shard else None,
        "skipped": [dataclasses.asdict(entry) for entry in skipped],
        "names": lists,
    }
    write_whole(records / f"{name}.json", json.dumps(fields).encode())
    return record


def read_record(folder: Path, records: Path, name: str) -> PartRecord | None:
    """The record of a part if it is finished and its tar is there in full, else None."""
    try:
        fields: dict[str, Any] = json.loads((records / f"{name}.json").read_bytes())
        rows = np.load(records / f"{name}.npy", allow_pickle=False)
        shard = Shard(**fields["shard"]) if fields["shard"] else None
        if shard and (folder / shard.file).stat().st_size != shard.bytes:
            return None
        if shard and not (folder / shard.file).with_suffix(".idx").is_file():
            return None
        return PartRecord(shard, tuple(Skipped(**entry) for entry in fields["skipped"]), rows, fields["names"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def array_bytes(array: np.ndarray) -> bytes:
    """An array as the bytes of a `.npy` file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _sorted_out(items: Iterable[Storable | Skipped], skipped: list[Skipped]) -> Iterator[Storable]:
    for item in items:
        if isinstance(item, Skipped):
            skipped.append(item)
        else:
            yield item


def _write_tar(path: Path, samples: Iterator[Storable]) -> list[Names]:
    """Write all samples and return their names; no samples, no file."""
    first = next(samples, None)
    if first is None:
        return []
    names = []
    # The context of a TarWriter only closes it, so an error inside still reaches `written_whole`.
    with written_whole(path) as stream, _tar_writer()(stream, user="", group="", mtime=0, encoder=False) as tar:
        for sample in chain([first], samples):
            tar.write(sample.members())
            names.append(sample.names)
    return names


def _tar_writer() -> type["TarWriter"]:
    """webdataset's writer, imported when a tar is written, since webdataset brings torch along for its loaders.

    Where there is no torch it does without. So it does in a worker, which loads no data: that saves each of them more
    than a second of computing and 180 MiB.
    """
    is_worker = multiprocessing.parent_process() is not None
    hidden = is_worker and "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way to say that a module is not there
    try:
        from webdataset.writer import TarWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return TarWriter
