"""A finished shard set on disk: opened with cheap checks, read sample by sample, or verified byte by byte."""

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from poselib.errors import InputError
from shards.records import Manifest, read_manifest
from shards.sample import NUMERIC, NUMERIC_SIZE, Sample, decode_names, encode_arrays, unpack
from shards.table import BLOCK, CODED, MEMBERS, row_type

MANIFEST: Final = "manifest.json"
TABLE: Final = "samples.npy"
OPEN_FILES: Final = 512
NAMED: Final = 20
"""How many damaged samples a message names before it only counts."""

_VECTOR_BYTES: Final = 4 * NUMERIC_SIZE
_NPY_HEADER: Final = encode_arrays({name: np.zeros(shape) for name, shape in NUMERIC.items()})[:-_VECTOR_BYTES]


class ShardSet:
    """A finished shard set; samples are read from sets of people (see `shards.occluders` for the others).

    It holds a map of `samples.npy`, which all processes of a machine share, and open files; never copies of
    annotations. Pickling sends the folder's name only.

    Attributes:
        folder: where it lies.
        manifest: what it says of itself.
        samples: one row per sample, see `shards.table.row_type`; read-only memory map.
    """

    def __init__(self, folder: Path, manifest: Manifest, samples: np.ndarray) -> None:
        self.folder, self.manifest, self.samples = folder, manifest, samples
        self._files: dict[int, int] = {}

    @classmethod
    def open(cls, folder: Path | str, kind: str = "people") -> "ShardSet":
        """Open a set of this kind and check its files' existence and sizes.

        Raises:
            InputError: no folder, no manifest, another kind or format version, no samples, or files that disagree.
        """
        folder = Path(folder)
        manifest = open_manifest(folder)
        if manifest.kind != kind:
            raise InputError(f"{folder} holds {manifest.kind}, not {kind}")
        return cls(folder, manifest, _open_table(folder, manifest))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the folder's name."""
        return ShardSet.open, (self.folder, self.manifest.kind)

    def __del__(self) -> None:
        """Close what is open."""
        for handle in getattr(self, "_files", {}).values():
            os.close(handle)

    def __len__(self) -> int:
        """How many samples the set holds."""
        return len(self.samples)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The lists behind the codes of the columns subject, action, camera and part."""
        return {column: getattr(self.manifest, f"{column}s") for column in CODED}

    def select(
        self,
        subjects: Sequence[str] = (),
        every: int = 1,
        actions: Sequence[str] = (),
        cameras: Sequence[str] = (),
        parts: Sequence[str] = (),
    ) -> np.ndarray:
        """Row numbers, ascending int64, of samples with these names (empty: all) and `frame % every == 0`.

        Raises:
            InputError: a name that the set does not have, or no sample left.
        """
        keep = self.samples["frame"] % every == 0
        for column, wanted in zip(CODED, (subjects, actions, cameras, parts), strict=True):
            known = self.names[column]
            missing = [name for name in wanted if name not in known]
            if missing:
                raise InputError(f"{self.folder} has no {column} {', '.join(missing)}, only {', '.join(known)}")
            if wanted:
                keep &= np.isin(self.samples[column], [known.index(name) for name in wanted])
        rows = np.flatnonzero(keep)
        if not len(rows):
            raise InputError(f"{self.folder}: no sample fits subjects {list(subjects)} and every {every}")
        return rows

    def read(self, row: int) -> Sample:
        """One sample with its names.

        Raises:
            InputError: the file does not hold what the table says.
        """
        place = self.samples[row]
        start = int(place["jpg_offset"]) - BLOCK
        data = self._read_span(row, start)
        try:
            header = tarfile.TarInfo.frombuf(data[:BLOCK], "utf-8", "strict")
            json_start = int(place["json_offset"]) - start
            names = decode_names(data[json_start : json_start + int(place["json_size"])])
        except (tarfile.TarError, ValueError, TypeError) as error:
            raise self._damaged(row, str(error)) from error
        jpeg = data[BLOCK : BLOCK + int(place["jpg_size"])]
        return Sample(header.name.removesuffix(".jpg"), jpeg, names, unpack(self._vector(row, data).copy()))

    def read_bytes(self, rows: Iterable[int]) -> tuple[list[np.ndarray], np.ndarray]:
        """Encoded pictures (uint8 arrays) and vectors (float32 `n NUMERIC_SIZE`) of rows: one read per sample.

        Raises:
            InputError: a file does not hold what the table says.
        """
        rows = list(rows)
        jpegs, vectors = [], np.empty((len(rows), NUMERIC_SIZE), np.float32)
        for place, row in enumerate(rows):
            data = self._read_span(row, int(self.samples["jpg_offset"][row]))
            jpegs.append(np.frombuffer(data, np.uint8, int(self.samples["jpg_size"][row])))
            vectors[place] = self._vector(row, data)
        return jpegs, vectors

    def _read_span(self, row: int, start: int) -> bytes:
        """The bytes of a sample's shard from `start` to the end of the sample."""
        place = self.samples[row]
        size = int(place["npy_offset"]) + int(place["npy_size"]) - start
        shard = int(place["shard"])
        path = self.folder / self.manifest.shards[shard].file
        try:
            handle = self._files[shard] if shard in self._files else os.open(path, os.O_RDONLY)
            try:
                data = os.pread(handle, size, start)
            finally:
                if len(self._files) < OPEN_FILES:
                    self._files[shard] = handle
                elif shard not in self._files:
                    os.close(handle)
        except OSError as error:
            raise self._damaged(row, error.strerror or str(error)) from error
        if len(data) != size:
            raise self._damaged(row, "the file is too short")
        return data

    def _vector(self, row: int, data: bytes) -> np.ndarray:
        head = len(data) - int(self.samples["npy_size"][row])
        if data[head:-_VECTOR_BYTES] != _NPY_HEADER:
            raise self._damaged(row, f"its .npy is no float32 vector of {NUMERIC_SIZE}")
        return np.frombuffer(data, np.float32, NUMERIC_SIZE, len(data) - _VECTOR_BYTES)

    def _damaged(self, row: int, reason: str) -> InputError:
        file = self.manifest.shards[int(self.samples["shard"][row])].file
        return InputError(f"{self.folder / file}, sample {row}: {reason}; `pose shards verify` checks the whole set")


def open_manifest(folder: Path) -> Manifest:
    """The manifest of a finished set of any kind, its files checked for existence and size.

    Raises:
        InputError: as in `ShardSet.open`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; a shard set is one with a {MANIFEST}")
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} has no {MANIFEST}: the build has not finished, run `pose shards build` again")
    manifest = read_manifest(folder / MANIFEST)
    if manifest.samples < 1:
        raise InputError(f"{folder} holds no samples")
    for shard in manifest.shards:
        path = folder / shard.file
        size = path.stat().st_size if path.is_file() else -1
        if size != shard.bytes:
            found = "is missing" if size < 0 else f"has {size} bytes"
            raise InputError(f"{path} {found}, the manifest says {shard.bytes}; copy or build the set again")
    return manifest


def verify(folder: Path | str) -> Manifest:
    """Read every byte of a set of any kind and compare it with the manifest.

    Raises:
        InputError: names the damaged shards and samples.
    """
    folder = Path(folder)
    manifest = open_manifest(folder)
    rows = _open_table(folder, manifest)
    damage: list[str] = []
    if hashlib.sha256((folder / TABLE).read_bytes()).hexdigest() != manifest.index_sha256:
        damage.append(TABLE)
    for number, shard in enumerate(manifest.shards):
        with (folder / shard.file).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == shard.sha256:
                continue
            bad = _damaged_samples(stream.fileno(), manifest.kind, rows[rows["shard"] == number])
        named = ", ".join(bad[:NAMED]) + (f" and {len(bad) - NAMED} more" if len(bad) > NAMED else "")
        damage.append(f"{shard.file} ({named or 'outside of its samples'})")
    if damage:
        raise InputError(f"{folder} is damaged: {'; '.join(damage)}; copy or build the set again")
    return manifest


def _open_table(folder: Path, manifest: Manifest) -> np.ndarray:
    try:
        rows = np.load(folder / TABLE, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / TABLE} cannot be read ({error}); copy or build the set again") from error
    if rows.dtype != row_type(manifest.kind) or len(rows) != manifest.samples:
        raise InputError(f"{folder / TABLE} does not fit {MANIFEST}; copy or build the set again")
    return rows


def _damaged_samples(handle: int, kind: str, rows: np.ndarray) -> list[str]:
    """The keys of the samples whose bytes have changed."""
    first, last = MEMBERS[kind][0], MEMBERS[kind][-1]
    bad = []
    for row in rows:
        start, stop = int(row[f"{first}_offset"]), int(row[f"{last}_offset"]) + int(row[f"{last}_size"])
        if zlib.crc32(os.pread(handle, stop - start, start)) != row["crc32"]:
            header = os.pread(handle, 100, start - BLOCK).split(b"\0")[0]
            bad.append(header.decode("utf-8", "replace").removesuffix(f".{first}"))
    return bad
