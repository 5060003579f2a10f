"""The files of one shard set, in a folder or behind a URL, and reads from its tars.

A local folder's tars are mapped into memory; one on a network file system is read by plain reads, because a map turns
every failure of the network into the process' death. From a URL whole files come into the cache, then are read there.
"""

import mmap
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast

from shards.cache import FileCache
from shards.records import Shard
from shards.storage import cache_folder, fetch, is_far, is_url, retried
from shards.storage_settings import StorageSettings

OPEN_FILES: Final = 512
_MAPPED: Final = 32 << 20
"""Bytes that reads may leave mapped before all are let go of."""


class Place:
    """Where a shard set lies.

    Attributes:
        name: the folder or URL, as in messages.
        settings: how it is reached.
        folder: the folder; None for a URL.
    """

    def __init__(self, place: Path | str, settings: StorageSettings) -> None:
        self.name = str(place).rstrip("/") if is_url(place) else str(place)
        self.settings = settings
        self.folder = None if is_url(place) else Path(place)

    def of(self, file: str) -> str:
        """A file's full name."""
        return f"{self.name}/{file}"

    def read(self, file: str) -> bytes:
        """A small file's content; not cached.

        Raises:
            InputError: it cannot be read.
        """
        if self.folder is not None:
            return retried((self.folder / file).read_bytes, self.of(file), self.settings)
        with tempfile.TemporaryFile() as stream:
            fetch(self.of(file), cast(BinaryIO, stream), self.settings)
            stream.seek(0)
            return stream.read()

    def local(self, file: str, sha256: str, size: int = -1) -> Path:
        """A path to open: the file itself, or its copy in the cache, which has this hash and size.

        Raises:
            InputError: it cannot be fetched, or is another one by now.
        """
        if self.folder is not None:
            return self.folder / file
        cache = FileCache(cache_folder(self.settings), int(self.settings.cache_gb * 1e9))
        return cache.get(sha256, size, self.of(file), lambda into: fetch(self.of(file), into, self.settings))

    @contextmanager
    def whole(self, file: str) -> Iterator[Path]:
        """A path to the file as it is, for verification: behind a URL, a copy that goes again."""
        if self.folder is not None:
            yield self.folder / file
            return
        with tempfile.NamedTemporaryFile(prefix="posecluster-verify-") as stream:
            fetch(self.of(file), cast(BinaryIO, stream), self.settings)
            stream.flush()
            yield Path(stream.name)


class _Open(Protocol):
    """An open tar."""

    def read(self, start: int, size: int) -> bytes:
        """As many of these bytes as there are."""

    def forget(self) -> None:
        """Give back the memory that reads have mapped."""

    def close(self) -> None:
        """Let go of it."""


class _Plain:
    """A file that is read by plain reads."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, start: int, size: int) -> bytes:
        return os.pread(self._handle, size, start)

    def forget(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._handle)


class _Mapped:
    """A file mapped into memory."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            empty = os.fstat(stream.fileno()).st_size == 0  # and cannot be mapped
            self._map = None if empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def read(self, start: int, size: int) -> bytes:
        # Touching pages behind the end of a file that was cut meanwhile would kill the process.
        if self._map is None or start + size > min(self._map.size(), len(self._map)):
            return b""
        return self._map[start : start + size]

    def forget(self) -> None:
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        if self._map is not None:
            self._map.close()


class ShardFiles:
    """The tars of a shard set, opened when they are first read; those unused for longest are closed.

    What was read from maps is given back now and then, so resident memory does not grow with the set.

    Args:
        place: of the set.
        shards: its tars.
    """

    def __init__(self, place: Place, shards: tuple[Shard, ...]) -> None:
        self._place, self._shards = place, shards
        self._type: type[_Plain] | type[_Mapped] | None = None
        self._open: OrderedDict[int, tuple[Path, _Open]] = OrderedDict()
        self._read_bytes = 0

    def read(self, shard: int, start: int, size: int) -> bytes:
        """These bytes of a tar, or fewer where it is shorter.

        Raises:
            InputError: it cannot be read, however often it was tried.
        """
        return retried(
            lambda: self._read(shard, start, size), self._place.of(self._shards[shard].file), self._place.settings
        )

    def close(self) -> None:
        """Close all."""
        for number in list(self._open):
            self._close(number)

    def __del__(self) -> None:
        """Close all."""
        self.close()

    def _read(self, number: int, start: int, size: int) -> bytes:
        if number not in self._open:
            self._add(number)
        self._open.move_to_end(number)
        self._read_bytes += size
        if self._read_bytes > _MAPPED:
            self._read_bytes = 0
            for _, handle in self._open.values():
                handle.forget()
        try:
            return self._open[number][1].read(start, size)
        except OSError:  # a stale handle; the next attempt opens the file anew
            self._close(number)
            raise

    def _add(self, number: int) -> None:
        shard = self._shards[number]
        path = self._place.local(shard.file, shard.sha256, shard.bytes)
        if self._type is None:
            self._type = _Plain if is_far(path.parent) else _Mapped
        if self._place.folder is None:  # files that left the cache take room until they are closed
            for other in [other for other, (copy, _) in self._open.items() if not copy.exists()]:
                self._close(other)
        if len(self._open) >= OPEN_FILES:
            self._close(next(iter(self._open)))
        self._open[number] = path, self._type(path)

    def _close(self, number: int) -> None:
        self._open.pop(number)[1].close()
