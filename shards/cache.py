"""A bounded store of whole files, named by their SHA-256, that the processes of a machine share.

A file appears under its name only when it is whole and has the right hash, so whoever finds it may read it. Two
processes that want the same one at the same time fetch it once: a lock lets one of them fetch while the other waits.
What was unused for longest goes when room is needed; who reads it at that moment keeps reading, for a file that is
open outlives its name.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from poselib.errors import InputError
from shards.atomic import TEMPORARY, written_whole
from shards.locks import take

_LOCKS: Final = ".locks"


class FileCache:
    """Files by their SHA-256 in a folder.

    Args:
        folder: made if missing.
        limit: bytes that all files may take together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def get(self, sha256: str, size: int, what: str, fetch: Callable[[BinaryIO], None]) -> Path:
        """The file with this hash, fetched if it is not there.

        Args:
            sha256: of the content, hexadecimal.
            size: bytes; -1 where unknown.
            what: the file, for messages.
            fetch: writes the content into a stream that is open for reading too.

        Raises:
            InputError: what was fetched has another size or hash, or the cache cannot hold or write it.
        """
        path = self.folder / sha256[:2] / sha256
        try:
            if self._take(path, size):
                return path
            (self.folder / _LOCKS).mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(exist_ok=True)
            with self._locked(sha256[:2]) as ours:
                if not self._take(path, size):
                    if ours:
                        _clear(path.parent)
                    self._fetch(path, sha256, size, what, fetch)
            return path
        except OSError as error:
            raise InputError(
                f"loader.storage.cache: {self.folder} cannot hold {what} ({error.strerror or error})"
            ) from error

    def _take(self, path: Path, size: int) -> bool:
        """Whether a whole file is there; marks it as used."""
        try:
            if size >= 0 and path.stat().st_size != size:
                return False
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, path: Path, sha256: str, size: int, what: str, fetch: Callable[[BinaryIO], None]) -> None:
        self._make_room(max(size, 0), what)
        with written_whole(path) as stream:
            fetch(stream)
            stream.flush()
            found = stream.tell()
            with Path(stream.name).open("rb") as written:
                digest = hashlib.file_digest(written, "sha256").hexdigest()
            if digest != sha256 or size not in (-1, found):
                expected = f"{size} bytes" if size not in (-1, found) else f"SHA-256 {sha256[:12]}"
                given = f"{found} bytes" if size not in (-1, found) else f"SHA-256 {digest[:12]}"
                raise InputError(f"{what} has {given}, the manifest says {expected}; copy or build the set again")
        self._make_room(0, what, keep=path)

    def _make_room(self, size: int, what: str, keep: Path | None = None) -> None:
        """Remove what was unused for longest until `size` more bytes fit."""
        if size > self.limit:
            raise InputError(
                f"loader.storage.cache_gb: {self.limit / 1e9:g} cannot hold {what} of {size / 1e9:.3g} GB; set it to"
                f" {10 * size / 1e9:.2g} or more"
            )
        with self._locked("room"):
            for folder in {left.parent for left in self.folder.glob(f"??/{TEMPORARY}")}:
                with self._locked(folder.name, wait=False) as ours:
                    if ours:
                        _clear(folder)
            files = []
            for path in self.folder.glob("??/*"):
                with suppress(FileNotFoundError):
                    status = path.stat()
                    files.append((status.st_mtime_ns, status.st_size, path))
            used = sum(size for _, size, _ in files)
            for _, freed, path in sorted(files):
                if used + size <= self.limit:
                    return
                if path != keep and not path.name.startswith("."):
                    path.unlink(missing_ok=True)
                    used -= freed

    @contextmanager
    def _locked(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Hold a lock among the processes of this machine, and say whether it is held: not where another one has it
        and there is no waiting, nor on a file system without locks, which only costs double fetches."""
        with (self.folder / _LOCKS / name).open("w") as file:
            yield take(file, wait=wait) == "held"


def _clear(folder: Path) -> None:
    """Remove what killed processes left of their fetches; whoever holds the folder's lock may."""
    for left in folder.glob(TEMPORARY):
        left.unlink(missing_ok=True)
