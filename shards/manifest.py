"""A finished shard set: opened with cheap checks, read sample by sample. `shards.verify` reads all of it."""

import tarfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from poselib.errors import InputError
from shards.place import Place, ShardFiles
from shards.records import Manifest, parse_manifest
from shards.sample import NUMERIC, NUMERIC_SIZE, Names, Sample, decode_names, encode_arrays, unpack
from shards.storage_settings import StorageSettings
from shards.table import BLOCK, CODED, row_type

MANIFEST: Final = "manifest.json"
TABLE: Final = "samples.npy"

_ADVICE: Final = "`pose shards verify` checks the whole set"
_LARGEST: Final = 1 << 28
"""Bytes that no sample takes."""
_VECTOR_BYTES: Final = 4 * NUMERIC_SIZE
_NPY_HEADER: Final = encode_arrays({name: np.zeros(shape) for name, shape in NUMERIC.items()})[:-_VECTOR_BYTES]


class DamagedSample(InputError):
    """A sample whose bytes are not those that were written; names the shard and the sample's key."""


class ShardSet:
    """A finished shard set; samples are read from sets of people (see `shards.occluders` for the others).

    It holds a map of `samples.npy`, which all processes of a machine share, and open files; never copies of
    annotations. Pickling sends the place's name only.

    Attributes:
        folder: where it lies, a folder or a URL.
        manifest: what it says of itself.
        samples: one row per sample, see `shards.table.row_type`; read-only memory map.
    """

    def __init__(self, place: Place, manifest: Manifest, samples: np.ndarray) -> None:
        self.folder, self.manifest, self.samples = place.name, manifest, samples
        self._place, self._files = place, ShardFiles(place, manifest.shards)
        self._rows = samples.view(np.ndarray)  # a memmap takes microseconds for every number

    @classmethod
    def open(
        cls,
        folder: Path | str,
        kind: str = "people",
        storage: StorageSettings | None = None,
        tolerant: bool = False,
    ) -> "ShardSet":
        """Open a set of this kind and check its files' existence and sizes.

        Args:
            folder: where it lies, a folder or a URL.
            kind: `people` or `occluders`.
            storage: how it is reached.
            tolerant: accept tars of another size; their samples prove to be damaged when they are read.

        Raises:
            InputError: no folder, no manifest, another kind or format version, no samples, or files that disagree.
        """
        place = Place(folder, storage or StorageSettings())
        manifest = _open_manifest(place, tolerant)
        if manifest.kind != kind:
            raise InputError(f"{folder} holds {manifest.kind}, not {kind}")
        return cls(place, manifest, _open_table(place, manifest))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the place's name."""
        return ShardSet.open, (self.folder, self.manifest.kind, self._place.settings)

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

    def shard_sizes(self, rows: np.ndarray) -> tuple[int, ...]:
        """How many of these rows, ascending, each shard holds; shards without any are left out."""
        return tuple(np.unique(self.samples["shard"][rows], return_counts=True)[1].tolist())

    def read(self, row: int) -> Sample:
        """One sample with its names; errors as in `read_bytes`."""
        place = self.samples[row]
        start = int(place["jpg_offset"]) - BLOCK
        data = self._read_span(row)
        try:
            key = tarfile.TarInfo.frombuf(data[:BLOCK], "utf-8", "strict").name.removesuffix(".jpg")
            json_start = int(place["json_offset"]) - start
            names = decode_names(data[json_start : json_start + int(place["json_size"])])
        except (tarfile.TarError, ValueError, TypeError) as error:
            raise self.damaged(row, str(error)) from error
        jpeg = data[BLOCK : BLOCK + int(place["jpg_size"])]
        return Sample(key, jpeg, names, unpack(self._vector(row, data).copy()))

    def read_names(self, row: int) -> tuple[str, Names]:
        """Key and names of one sample, without its picture; errors as in `read_bytes`, though nothing is hashed."""
        place = self._rows[row]
        shard = int(place["shard"])
        if shard >= len(self.manifest.shards):
            raise self.damaged(row, f"{TABLE} says that it is in shard {shard}")
        try:
            header = self._files.read(shard, int(place["jpg_offset"]) - BLOCK, BLOCK)
            key = tarfile.TarInfo.frombuf(header, "utf-8", "strict").name.removesuffix(".jpg")
            return key, decode_names(self._files.read(shard, int(place["json_offset"]), int(place["json_size"])))
        except (tarfile.TarError, ValueError, TypeError) as error:
            raise self.damaged(row, str(error)) from error

    def read_bytes(self, rows: Iterable[int]) -> tuple[list[np.ndarray], np.ndarray]:
        """Encoded pictures (uint8 arrays) and vectors (float32 `n NUMERIC_SIZE`) of rows: one read per sample.

        Raises:
            DamagedSample: a file does not hold what the table says.
            InputError: a file cannot be read, however often it is tried.
        """
        found = [self.read_one(row) for row in rows]
        vectors = np.array([vector for _, vector in found], np.float32).reshape(-1, NUMERIC_SIZE)
        return [jpeg for jpeg, _ in found], vectors

    def read_one(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Encoded picture (uint8 `n`) and vector (float32 `NUMERIC_SIZE`) of a row; errors as in `read_bytes`."""
        data = self._read_span(row)
        return np.frombuffer(data, np.uint8, int(self._rows[row]["jpg_size"]), BLOCK), self._vector(row, data)

    def damaged(self, row: int, reason: str) -> DamagedSample:
        """The error that names a sample by its shard and key."""
        shard = int(self.samples["shard"][row])
        if not shard < len(self.manifest.shards):
            return DamagedSample(f"{self._place.of(TABLE)}, sample {row}: there is no shard {shard}; {_ADVICE}")
        file, key = self._place.of(self.manifest.shards[shard].file), self._key(row)
        return DamagedSample(f"{file}, sample {row}{key and f' ({key})'}: {reason}; {_ADVICE}")

    def _key(self, row: int) -> str:
        """A sample's key: by its header in the tar, else by DALI's index beside it; empty where both are damaged."""
        place = self.samples[row]
        shard = self.manifest.shards[int(place["shard"])]
        try:
            header = self._files.read(int(place["shard"]), int(place["jpg_offset"]) - BLOCK, BLOCK)
            return tarfile.TarInfo.frombuf(header, "utf-8", "strict").name.removesuffix(".jpg")
        except (InputError, OSError, OverflowError, ValueError, tarfile.TarError):
            pass
        try:
            lines = self._place.read(str(Path(shard.file).with_suffix(".idx"))).decode().splitlines()
            # Below the version: `jpg OFFSET SIZE NAME json ...`, a line for each sample of the shard.
            in_shard = int(np.count_nonzero(self.samples["shard"][:row] == place["shard"]))
            return lines[1 + in_shard].split(" ")[3].removesuffix(".jpg")
        except (InputError, ValueError, IndexError):
            return ""

    def _read_span(self, row: int) -> bytes:
        """The bytes of a sample, from the header of its first member to the end of its last one."""
        place = self._rows[row]
        start, shard = int(place["jpg_offset"]) - BLOCK, int(place["shard"])
        size = int(place["npy_offset"]) + int(place["npy_size"]) - start
        if shard >= len(self.manifest.shards) or start < 0 or not BLOCK < size < _LARGEST:
            raise self.damaged(row, f"{TABLE} says that it takes {size} bytes from byte {start}")
        data = self._files.read(shard, start, size)
        if len(data) != size:
            raise self.damaged(row, "the file is too short")
        if zlib.crc32(memoryview(data)[BLOCK:]) != place["crc32"]:
            raise self.damaged(row, "its bytes are not those that were written")
        return data

    def _vector(self, row: int, data: bytes) -> np.ndarray:
        head = len(data) - int(self._rows[row]["npy_size"])
        if data[head:-_VECTOR_BYTES] != _NPY_HEADER:
            raise self.damaged(row, f"its .npy is no float32 vector of {NUMERIC_SIZE}")
        return np.frombuffer(data, np.float32, NUMERIC_SIZE, len(data) - _VECTOR_BYTES)


def open_manifest(folder: Path | str, storage: StorageSettings | None = None) -> Manifest:
    """The manifest of a finished set of any kind, its files checked for existence and size.

    Raises:
        InputError: as in `ShardSet.open`.
    """
    return _open_manifest(Place(folder, storage or StorageSettings()), tolerant=False)


def open_set(place: Place) -> tuple[Manifest, np.ndarray]:
    """Manifest and table of a set of any kind; its tars may have any size. Errors as in `ShardSet.open`."""
    manifest = _open_manifest(place, tolerant=True)
    return manifest, _open_table(place, manifest)


def _open_manifest(place: Place, tolerant: bool) -> Manifest:
    """As `open_manifest`. Files behind a URL are checked when they are fetched."""
    folder = place.folder
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder} is not a folder; a shard set is one with a {MANIFEST}")
    if folder is not None and not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} has no {MANIFEST}: the build has not finished, run `pose shards build` again")
    manifest = parse_manifest(place.read(MANIFEST), place.of(MANIFEST))
    if manifest.samples < 1:
        raise InputError(f"{place.name} holds no samples")
    for shard in manifest.shards:
        if folder is None:
            break
        path = folder / shard.file
        size = path.stat().st_size if path.is_file() else -1
        if size != shard.bytes and not (tolerant and size >= 0):
            found = "is missing" if size < 0 else f"has {size} bytes"
            raise InputError(f"{path} {found}, the manifest says {shard.bytes}; copy or build the set again")
    return manifest


def _open_table(place: Place, manifest: Manifest) -> np.ndarray:
    """A map of `samples.npy`: its pages are shared by all processes of a machine, so it is mapped from any disk."""
    try:
        rows = np.load(place.local(TABLE, manifest.index_sha256), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{place.of(TABLE)} cannot be read ({error}); copy or build the set again") from error
    if rows.dtype != row_type(manifest.kind) or len(rows) != manifest.samples:
        raise InputError(f"{place.of(TABLE)} does not fit {MANIFEST}; copy or build the set again")
    return rows
