"""A folder that all nodes have to see, write and lock alike: rank 0 writes and locks a file there, the others look."""

import os
import time
import uuid
from pathlib import Path
from typing import IO, Final

from cluster.doctor.finding import Finding
from cluster.doctor.machine import existing
from cluster.doctor.meeting import Meeting
from shards.locks import Taken, take

_SEEN_WITHIN_S: Final = 15.0
"""How long a network file system may take to show another node's new file."""
_SILENT: Final = "rank 0 said nothing of it"
_LOCKS_ADVICE: Final = (
    "locks keep two starts of a run apart: mount it with them (Lustre: -o flock), or see that no run is started twice"
)


class SharedFolder:
    """What one node finds of a folder. All leads of a meeting check the same folders in the same order.

    Args:
        meeting: of the nodes.
        folder: rank 0's word counts; the others may stand elsewhere.
    """

    def __init__(self, meeting: Meeting, folder: Path) -> None:
        self._meeting, self._folder = meeting, folder
        self._file: Path | None = None
        self._lock: IO[str] | None = None

    def check(self) -> list[Finding]:
        """What rank 0 writes into the folder, this node sees; it can write there too, and honours rank 0's lock."""
        main = self._meeting.world.is_main
        key = f"folder/{self._folder}"
        if main:
            self._meeting.say(key, self._prepare())
        told = self._meeting.hear(key)
        if told is None:
            return [Finding(f"shared folder {self._folder}", "fail", _SILENT, "see the other findings")]
        place, name, nonce, taken = Path(told[0]), told[1], told[2], told[3]
        found = self._seen(place, name, nonce)
        if found.status != "ok":
            return [found]
        return [found, locks(self._folder, taken if main else _taken(place / name), main)]

    def clean(self) -> None:
        """Remove rank 0's file, once all have looked."""
        if self._lock:
            self._lock.close()
        if self._file:
            self._file.unlink(missing_ok=True)

    def _prepare(self) -> list[str]:
        """Rank 0 writes a file and locks it: the folder, the file's name and content, and what the lock gave."""
        place = existing(self._folder)
        name, nonce = _write_nonce(place)
        if not name:
            return [str(place), "", nonce, ""]
        self._file = place / name
        self._lock = self._file.open("r+")
        return [str(place), name, nonce, _take(self._lock)]

    def _seen(self, place: Path, name: str, nonce: str) -> Finding:
        check = f"shared folder {self._folder}"
        if not name:
            return Finding(check, "fail", f"{place}: {nonce}", "give a folder that the job may write")
        if not self._meeting.world.is_main and not _sees(place / name, nonce):
            advice = "take a folder of a file system that every node mounts (runs_dir, --shared)"
            host = self._meeting.members[0].host
            return Finding(check, "fail", f"does not see what {host} writes into {place}", advice)
        own, fault = _write_nonce(place)
        if not own:
            return Finding(check, "fail", f"{place}: {fault}", "give a folder that the job may write on every node")
        (place / own).unlink()
        return Finding(check, "ok", f"{place} is one for all, writable")


def locks(folder: Path, taken: Taken, owner: bool) -> Finding:
    """Judge what the file system answered to the one who locked first, and to another node that tried to."""
    check = f"file locks {folder}"
    if taken == "no locks here":
        return Finding(check, "warn", "the file system has no flock", _LOCKS_ADVICE)
    if taken == "held" and not owner:
        return Finding(check, "warn", "a lock of rank 0's node does not count here", _LOCKS_ADVICE)
    return Finding(check, "ok", "locks count on all nodes")


def _taken(file: Path) -> Taken:
    with file.open("r+") as stream:  # NFS locks for writing only what is open for it
        return _take(stream)


def _take(stream: IO[str]) -> Taken:
    try:
        return take(stream)
    except OSError:
        return "no locks here"


def _write_nonce(folder: Path) -> tuple[str, str]:
    """Write a new small file: its name and content; no name, and why, where that fails."""
    nonce = uuid.uuid4().hex
    file = folder / f".doctor-{nonce}"
    try:
        with file.open("x") as stream:
            stream.write(nonce)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return "", error.strerror or str(error)
    return file.name, nonce


def _sees(file: Path, nonce: str) -> bool:
    """Whether a file with this content appears soon."""
    deadline = time.monotonic() + _SEEN_WITHIN_S
    while True:
        try:
            list(file.parent.glob(file.name))  # has a network file system ask its server again
            if file.read_text() == nonce:
                return True
        except OSError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
