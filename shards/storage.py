"""Where shard sets lie: a folder on a local or a network file system, or a URL that fsspec understands.

A place is text. With `://` in it, it is a URL; everything else is a folder. Nobody else tells them apart.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from poselib.errors import InputError
from shards.storage_settings import StorageSettings

Answer = TypeVar("Answer")

_MOUNTS: Final = Path("/proc/self/mountinfo")
_NETWORK: Final = frozenset(
    [
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs", "lustre", "mmfs", "ncpfs", "nfs"),
        *("nfs4", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "virtiofs", "wekafs"),
    ]
)
_FINAL: Final = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ImportError)
"""Failures that no patience mends."""
_COPY: Final = 1 << 20


def is_url(place: Path | str) -> bool:
    """Whether a place is a URL."""
    return "://" in str(place)


def is_far(place: Path | str, mounts: Path = _MOUNTS) -> bool:
    """Whether reads from a place cross a network: a URL, or a folder on a network file system."""
    if is_url(place):
        return True
    kind = file_system(Path(place), mounts)
    return kind in _NETWORK or kind.startswith("fuse.")


def file_system(path: Path, mounts: Path = _MOUNTS) -> str:
    """The type of the file system that a path lies on, such as `ext4`; empty where the system does not say."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    path = path.resolve()
    best, kind = -1, ""
    for line in lines:
        mount, _, rest = line.partition(" - ")
        # Spaces and the like stand as octal numbers.
        point = Path(mount.split(" ")[4].encode("latin-1", "replace").decode("unicode_escape"))
        # Of several on one point, the last one lies on top.
        if len(point.parts) >= best and path.is_relative_to(point):
            best, kind = len(point.parts), rest.split(" ")[0]
    return kind


def cache_folder(settings: StorageSettings) -> Path:
    """Where shards from URLs are kept."""
    if settings.cache is not None:
        return settings.cache
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "posecluster" / "shards"


def retried(act: Callable[[], Answer], what: str, settings: StorageSettings) -> Answer:
    """What `act` gives; where it fails it is tried again, after pauses that double.

    Raises:
        InputError: it failed every time, or in a way that no patience mends; names `what`.
    """
    for attempt in range(settings.attempts):
        try:
            return act()
        except InputError:
            raise
        except _FINAL as error:
            raise InputError(f"{what} cannot be read ({_reason(error)})") from error
        except Exception as error:  # every kind of store brings its own errors
            if attempt + 1 == settings.attempts:
                tries = "once" if attempt == 0 else f"{attempt + 1} times"
                raise InputError(f"{what} cannot be read, tried {tries} ({_reason(error)})") from error
            time.sleep(settings.backoff_s * 2**attempt)
    raise AssertionError("attempts is at least 1")


def fetch(url: str, into: BinaryIO, settings: StorageSettings) -> None:
    """Copy what stands at a URL into a stream, from its start; errors as in `retried`."""

    def copy() -> None:
        into.seek(0)
        into.truncate()
        system, path = _open_system(url)
        with system.open(path, "rb") as stream:
            shutil.copyfileobj(stream, into, _COPY)

    retried(copy, url, settings)


def _open_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except ValueError as error:  # an unknown protocol
        raise InputError(f"{url}: {error}; a folder, or a URL such as s3://bucket/set, would be right") from error
    return system, path


def _reason(error: Exception) -> str:
    """One line of what went wrong."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(words.split())[:200]
