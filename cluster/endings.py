"""How a rank ends: exit codes that a batch script can act on, and a note of who failed and who only lost the others.

`srun` returns the highest code of its tasks, so what would only happen again outweighs what may go well next time.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cluster.world import Job
from poselib.errors import InputError
from shards.atomic import write_whole

TRY_AGAIN: Final = 75
NEVER_AGAIN: Final = 76
_NOTES: Final = "endings"
FINAL_CODES: Final = frozenset({1, 2, NEVER_AGAIN})
"""A new start would end the same way. Everything else (a signal, a lost node, a bug) is worth another one."""


class TryAgain(InputError):
    """A new start may well not meet this again: a lost rank, a full disk, a hang."""

    exit_code = TRY_AGAIN


class NeverAgain(InputError):
    """A new start would end the same way, or must not be: a wrong setting, damaged data, a newer start at work."""

    exit_code = NEVER_AGAIN


class LostOthers(TryAgain):
    """This rank was well, but others are gone or stuck."""


class SaidByMain(SystemExit):
    """Ends a rank other than 0 without a line of its own, as rank 0 says it.

    Args:
        error: what all ranks have agreed on; its exit code becomes this one's.
    """

    def __init__(self, error: InputError) -> None:
        super().__init__(getattr(error, "exit_code", 1))
        self.words = str(error)


def in_words(error: OSError) -> str:
    """One line that names the file, where the error knows it."""
    text = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error.strerror or str(error)
    return " ".join(text.split())[:200]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a disk that is full or broken into one line.

    Raises:
        TryAgain: the block could not write; names `path` and the reason.
    """
    try:
        yield
    except OSError as error:
        raise TryAgain(f"{path} could not be written: {error.strerror or in_words(error)}") from error


@dataclass(frozen=True)
class Ending:
    """How a rank ended.

    Attributes:
        rank: which.
        host: where it ran.
        words: why.
        lost: whether it only lost the others.
        final: whether a new start would end the same way.
    """

    rank: int
    host: str
    words: str
    lost: bool
    final: bool = False


def note_ending(folder: Path, job: Job, ending: Ending) -> None:
    """Leave a note in the run's folder for the batch script; a rank that cannot write it ends all the same."""
    with suppress(OSError):
        if folder.is_dir():
            notes = _notes(folder, job)
            notes.mkdir(parents=True, exist_ok=True)
            write_whole(notes / f"{ending.rank}.json", json.dumps(asdict(ending)).encode())


def read_endings(folder: Path, job: Job) -> list[Ending]:
    """The notes of this start of the job, by rank."""
    found = []
    for path in _notes(folder, job).glob("*.json"):
        with suppress(OSError, ValueError, TypeError):
            found.append(Ending(**json.loads(path.read_text())))
    return sorted(found, key=lambda ending: ending.rank)


def forget_endings(folder: Path) -> None:
    """Remove the notes of all starts."""
    shutil.rmtree(folder / _NOTES, ignore_errors=True)


def failed_node(hosts: list[str], endings: list[Ending]) -> str:
    """The one node that failed while the ranks of all others only lost it; empty where there is no such node.

    A node without a single note was lost, or its ranks were killed or stuck.
    """
    noted = {ending.host for ending in endings}
    failed = {ending.host for ending in endings if not ending.lost} | (set(hosts) - noted)
    return failed.pop() if len(failed) == 1 and len(hosts) > 1 else ""


def _notes(folder: Path, job: Job) -> Path:
    return folder / _NOTES / f"{job.id}.{job.restart}"
