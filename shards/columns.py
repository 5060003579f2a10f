"""What was read from large annotation files, as columns on disk: processes map the rows that they need and no others.

An index is a folder: one `.npy` per column with the rows of all pieces one after another, and `pieces.json` with each
piece's name, its plain values and where its rows lie. It is written once, by one process, and then only read.
"""

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from shards.atomic import sync_folder, write_whole

PIECES: Final = "pieces.json"


@dataclass(frozen=True, eq=False)
class Piece:
    """A named part of what was read.

    Attributes:
        name: unique in the index.
        plain: JSON values, small.
        columns: arrays of numbers, or of texts as UTF-8 bytes (see `encode_texts`), rows first.
    """

    name: str
    plain: Any
    columns: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Place:
    """Where a piece lies: small enough to be sent to a process.

    Attributes:
        folder: the index.
        plain: its JSON values.
        rows: first row and the one behind the last, by column.
    """

    folder: Path
    plain: Any
    rows: dict[str, tuple[int, int]]

    def columns(self) -> dict[str, np.ndarray]:
        """Its rows, mapped from disk, read-only."""
        return {
            column: np.load(self.folder / f"{column}.npy", mmap_mode="r", allow_pickle=False)[start:stop]
            for column, (start, stop) in self.rows.items()
        }


def write_columns(folder: Path, pieces: list[Piece]) -> None:
    """Write an index that appears whole; one that another process has finished meanwhile stays in its place."""
    beside = folder.with_name(f".{folder.name}.writing-{uuid.uuid4().hex}")
    beside.mkdir(parents=True)
    try:
        places: list[dict[str, tuple[int, int]]] = [{} for _ in pieces]
        for column in sorted({column for piece in pieces for column in piece.columns}):
            owners = [number for number, piece in enumerate(pieces) if column in piece.columns]
            spans = _write_column(beside / f"{column}.npy", [pieces[number].columns[column] for number in owners])
            for number, span in zip(owners, spans, strict=True):
                places[number][column] = span
        listed = [[piece.name, piece.plain, place] for piece, place in zip(pieces, places, strict=True)]
        write_whole(beside / PIECES, json.dumps(listed).encode())
        try:
            beside.rename(folder)
        except OSError:
            if not (folder / PIECES).is_file():
                raise
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read_places(folder: Path) -> list[tuple[str, Place]] | None:
    """Names and places of all pieces in order, or None where there is no whole index."""
    try:
        listed = json.loads((folder / PIECES).read_bytes())
        return [
            (name, Place(folder, plain, {column: (span[0], span[1]) for column, span in rows.items()}))
            for name, plain, rows in listed
        ]
    except (OSError, ValueError, TypeError, IndexError):
        return None


def encode_texts(texts: tuple[str, ...] | list[str]) -> np.ndarray:
    """Texts as a column `n` of UTF-8 bytes."""
    return np.array([text.encode() for text in texts], dtype=np.bytes_)


def decode_texts(column: np.ndarray) -> tuple[str, ...]:
    """A column of UTF-8 bytes as texts."""
    return tuple(text.decode() for text in column.tolist())


def _write_column(path: Path, arrays: list[np.ndarray]) -> list[tuple[int, int]]:
    """Arrays one after another in one file, never in memory together; the rows of each."""
    ends = np.cumsum([len(array) for array in arrays]).tolist()
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    shape, dtype = arrays[0].shape[1:], np.result_type(*{array.dtype for array in arrays})
    if not ends[-1]:
        np.save(path, np.zeros((0, *shape), dtype), allow_pickle=False)
        return spans
    file = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(ends[-1], *shape))
    for array, (start, stop) in zip(arrays, spans, strict=True):
        file[start:stop] = array
    file.flush()
    del file
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return spans
