"""`.building/`, the folder of an unfinished set: who may work in it, on this machine and on others.

    settings.json    what the set is built from; the first builder whose plan stands writes it, others must agree
    lock             shared by builders of shares, taken whole by a build of everything and by whoever finishes
    locks/PART       taken by the process that makes this part
    PART.json, .npy  records of finished parts
    index-*/         annotations as columns

Locks are the kernel's (`flock`, which NFS passes on to its server), so a killed process holds nothing. On a file system
without locks two builders may do the same work; names of unfinished files are random and the bytes of a part depend on
the raw data alone, so nothing is lost then either.
"""

import errno
import glob
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from poselib.errors import InputError
from shards.atomic import TEMPORARY, write_whole
from shards.locks import take

BUILDING: Final = ".building"
SETTINGS: Final = "settings.json"
PATIENCE_S: Final = 20.0
"""Whoever checks whether a set is complete holds the folder for a moment; a share that starts then waits for it."""


class FolderBusy(InputError):
    """Another builder holds the folder."""


@contextmanager
def hold_folder(out: Path, whole: bool, patience_s: float = 0.0) -> Iterator[None]:
    """Keep other builders away: all of them (`whole`), or those that want the folder whole.

    Raises:
        FolderBusy: another one is at work.
        InputError: the folder cannot be written to.
    """
    try:
        (out / BUILDING / "locks").mkdir(parents=True, exist_ok=True)
        stream = (out / BUILDING / "lock").open("a+b")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"out: {out} cannot be written to ({error.strerror})") from error
    with stream:
        deadline = time.monotonic() + patience_s
        while take(stream, shared=not whole) == "busy":
            if time.monotonic() > deadline:
                raise FolderBusy(f"out: another build is at work in {out}; wait for it or take another folder")
            time.sleep(0.2)
        if whole:
            _sweep(out, TEMPORARY)
        try:
            yield
        finally:
            if whole:
                _sweep(out, TEMPORARY)


@contextmanager
def hold_part(out: Path, name: str) -> Iterator[bool]:
    """Whether this process may make the part now; False while another one makes it."""
    with (out / BUILDING / "locks" / name).open("a+b") as stream:
        held = take(stream) != "busy"
        if held:
            stream.truncate(0)
            stream.write(f"{socket.gethostname()}, process {os.getpid()}".encode())
            stream.flush()
            _sweep(out, f".{glob.escape(name)}.*.writing-*")  # its former maker is dead
        yield held


@contextmanager
def hold_index(out: Path) -> Iterator[None]:
    """Wait until no other process of any machine makes an index here."""
    with (out / BUILDING / "locks" / ".index").open("a+b") as stream:
        take(stream, wait=True)
        yield


def part_maker(out: Path, name: str) -> str:
    """Host and process that made the part last, or are making it."""
    try:
        return (out / BUILDING / "locks" / name).read_text() or "another process"
    except (OSError, ValueError):
        return "another process"


def check_claim(out: Path, content: dict[str, Any]) -> None:
    """Refuse a folder that is not one for a set of these settings, or free for it; changes nothing.

    Raises:
        InputError: it belongs to a set of others, or holds something else.
    """
    path = out / BUILDING / SETTINGS
    if path.is_file():
        try:
            there = json.loads(path.read_bytes())
        except ValueError as error:
            raise InputError(
                f"{path} is damaged ({error}); remove {path.parent}, finished parts are made again"
            ) from error
        check_same(there, content, out)
    elif out.is_dir():
        foreign = sorted(entry.name for entry in out.iterdir() if entry.name != BUILDING)
        if foreign and not path.is_file():
            raise InputError(
                f"out: {out} is neither empty nor a shard set (it holds {foreign[0]}); take another folder"
            )


def claim(out: Path, content: dict[str, Any]) -> None:
    """Make the folder one for a set of these settings; errors as in `check_claim`."""
    check_claim(out, content)
    if not (out / BUILDING / SETTINGS).is_file():
        _write_first(out / BUILDING / SETTINGS, json.dumps(content).encode())
        check_claim(out, content)  # another builder may have been first


def check_same(there: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Refuse to mix sets.

    Raises:
        InputError: the settings in `out` are others.
    """
    different = [key for key in now if there.get(key) != now[key]]
    if different:
        changes = ", ".join(f"{key} {there.get(key)} there, {now[key]} now" for key in different)
        raise InputError(f"out: {out} holds a set of other settings ({changes}); take another folder")


def clear(out: Path) -> None:
    """Remove `.building/` of a finished set. What another process still has open may stay and does no harm."""
    shutil.rmtree(out / BUILDING, ignore_errors=True)


def _write_first(path: Path, content: bytes) -> None:
    """Write a file that does not exist yet; of several writers one wins. A link is exclusive on NFS too."""
    beside = path.with_name(f"{path.name}-{socket.gethostname()}-{os.getpid()}")
    write_whole(beside, content)
    try:
        os.link(beside, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        write_whole(path, content)
    finally:
        beside.unlink(missing_ok=True)


def _sweep(out: Path, pattern: str) -> None:
    """Remove what killed writers left half written."""
    for folder in (out, out / BUILDING):
        for left in folder.glob(pattern):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
