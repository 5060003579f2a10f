"""A finished shard set, read byte by byte and compared with its manifest: every tar, its index for DALI, the table."""

import hashlib
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from poselib.errors import InputError
from shards.manifest import TABLE, open_set
from shards.place import Place
from shards.records import Manifest, Shard
from shards.storage_settings import StorageSettings
from shards.table import BLOCK, MEMBERS

NAMED: Final = 20
"""How many damaged samples of a shard the message names before it only counts; `DamagedSet.damage` has them all."""


@dataclass(frozen=True)
class Damage:
    """A damaged file and the keys of its damaged samples; `what` says the rest."""

    file: str
    keys: tuple[str, ...] = ()
    what: str = ""

    def __str__(self) -> str:
        """For messages."""
        named = ", ".join(self.keys[:NAMED])
        more = f" and {len(self.keys) - NAMED} more" if len(self.keys) > NAMED else ""
        inside = f"{named}{more}" or self.what
        return f"{self.file} ({inside})" if inside else self.file


class DamagedSet(InputError):
    """A set of which some bytes are not those that were written."""

    def __init__(self, folder: str, damage: list[Damage]) -> None:
        super().__init__(f"{folder} is damaged: {'; '.join(map(str, damage))}; copy or build the set again")
        self.damage = damage


def verify(folder: Path | str, storage: StorageSettings | None = None) -> Manifest:
    """Read every byte of a set of any kind and compare it with the manifest.

    Raises:
        DamagedSet: names the damaged files and every damaged sample.
        InputError: a file is missing or cannot be read.
    """
    place = Place(folder, storage or StorageSettings())
    manifest, rows = open_set(place)
    with place.whole(TABLE) as path:
        if hashlib.sha256(path.read_bytes()).hexdigest() != manifest.index_sha256:
            raise DamagedSet(place.name, [Damage(TABLE, (), "so no sample can be found")])
    damage = [
        found
        for number, shard in enumerate(manifest.shards)
        for found in _shard_damage(place, manifest.kind, shard, rows[rows["shard"] == number])
    ]
    if damage:
        raise DamagedSet(place.name, damage)
    return manifest


def _shard_damage(place: Place, kind: str, shard: Shard, rows: np.ndarray) -> list[Damage]:
    damage = []
    index = str(Path(shard.file).with_suffix(".idx"))
    keys = _indexed_keys(place, index, kind, rows)
    with place.whole(shard.file) as path, path.open("rb") as stream:
        heads = [_head(stream.fileno(), kind, row) for row in rows]
        if hashlib.file_digest(stream, "sha256").hexdigest() != shard.sha256:
            bad = [n for n, row in enumerate(rows) if not _is_whole(stream.fileno(), kind, row)]
            names = tuple((keys[n] if keys else heads[n]) or f"sample {n}" for n in bad)
            damage.append(Damage(shard.file, names, "outside of its samples"))
        elif keys != heads:
            damage.append(Damage(index, (), "it does not fit its tar"))
    return damage


def _is_whole(handle: int, kind: str, row: np.void) -> bool:
    first, last = MEMBERS[kind][0], MEMBERS[kind][-1]
    start, stop = int(row[f"{first}_offset"]), int(row[f"{last}_offset"]) + int(row[f"{last}_size"])
    return bool(zlib.crc32(os.pread(handle, stop - start, start)) == row["crc32"])


def _head(handle: int, kind: str, row: np.void) -> str:
    """A sample's key as its first header in the tar has it; empty where that is damaged."""
    first = MEMBERS[kind][0]
    try:
        block = os.pread(handle, BLOCK, int(row[f"{first}_offset"]) - BLOCK)
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict").name.removesuffix(f".{first}")
    except (tarfile.TarError, ValueError):
        return ""


def _indexed_keys(place: Place, index: str, kind: str, rows: np.ndarray) -> list[str]:
    """The samples' keys as DALI's index has them; empty where it is missing, or says other places than the table."""
    try:
        lines = place.read(index).decode().splitlines()
    except (InputError, OSError, ValueError):
        return []
    keys = []
    for line, row in zip(lines[1:], rows, strict=False):
        key = line.rpartition(" ")[2].rpartition(".")[0]
        members = (f"{end} {row[f'{end}_offset']} {row[f'{end}_size']} {key}.{end}" for end in MEMBERS[kind])
        if line != " ".join(members):
            return []
        keys.append(key)
    return keys if lines[0] == f"v1.2 {len(rows)}" and len(keys) == len(rows) else []
