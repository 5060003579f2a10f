"""Which start of a run may write into its folder: the newest one alone.

A copy of a job can live on after a network cut while the batch system starts the job elsewhere. Each start raises the
number in `incarnation.json`; whoever finds a higher one than its own stops without writing. What is committed (a
checkpoint's rename, a model file) happens under a lock that raising takes too, so nothing slips in between the look at
the number and the write.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cluster.checkpoint_names import CHECKPOINTS, by_step
from cluster.endings import NeverAgain, TryAgain
from cluster.world import Job
from shards.atomic import write_whole
from shards.locks import take

FENCE: Final = "incarnation.json"
_LOCK: Final = ".incarnation.lock"


@dataclass(frozen=True)
class Incarnation:
    """One start of a run.

    Attributes:
        number: rises by one with each start in this folder.
        job: Slurm's job id; empty elsewhere.
        restart: how often Slurm has requeued that job.
        host: where rank 0 runs.
        step: of the newest checkpoint that stood there at the start; 0 for none.
        since: the job's restart that was the first to find that checkpoint.
        began: seconds since 1970.
    """

    number: int = 0
    job: str = ""
    restart: int = 0
    host: str = ""
    step: int = 0
    since: int = 0
    began: float = 0.0

    def follows(self, job: Job) -> bool:
        """Whether this start is of the same job, requeued more often."""
        return bool(job.id) and self.job == job.id and self.restart > job.restart


def read_incarnation(folder: Path) -> Incarnation:
    """The newest start of the run in `folder`; number 0 where there was none.

    Raises:
        TryAgain: it cannot be told, so nobody may take itself for the newest.
    """
    path = folder / FENCE
    try:
        return Incarnation(**json.loads(path.read_text()))
    except FileNotFoundError:
        return Incarnation()
    except OSError as error:
        reason = f"{path} could not be read ({error.strerror}): which start may write here is not known"
        raise TryAgain(reason) from error
    except (ValueError, TypeError) as error:
        raise TryAgain(f"{path} is damaged; if no start of this run is at work, remove it") from error


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint of the run in `folder`, by its name alone; 0 for none."""
    return max(by_step(folder / CHECKPOINTS), default=0)


def fruitless_starts(folder: Path, job: Job) -> int:
    """Starts of the job, its present one included, since the newest checkpoint was made."""
    last = read_incarnation(folder)
    if last.job != job.id:
        return job.restart + 1
    return 0 if newest_step(folder) > last.step else job.restart - last.since + 1


class Fence:
    """The right of one start to write into its run's folder.

    Args:
        folder: of the run.
        number: this start's.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.number = number

    @property
    def stands(self) -> bool:
        """Whether no newer start has taken over."""
        return read_incarnation(self.folder).number <= self.number

    def check(self) -> None:
        """Do nothing, or stop this start.

        Raises:
            NeverAgain: a newer start has taken over.
            TryAgain: that cannot be told.
        """
        newest = read_incarnation(self.folder)
        if newest.number > self.number:
            raise NeverAgain(
                f"{self.folder}: start {newest.number} of this run{_of_job(newest)} has taken over; this one, start"
                f" {self.number}, ends without writing"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep a newer start out while the block commits something.

        Raises:
            NeverAgain: a newer start has taken over; the block is not run.
            TryAgain: that cannot be told; nor is it.
        """
        with _locked(self.folder):
            self.check()
            yield


def raise_fence(folder: Path, job: Job, host: str) -> Incarnation:
    """Become the newest start of the run in `folder`.

    Raises:
        NeverAgain: the job has been requeued meanwhile, and that start has come first.
    """
    with _locked(folder):
        last = read_incarnation(folder)
        if last.follows(job):
            Fence(folder, last.number - 1).check()
        step = newest_step(folder)
        same = bool(job.id) and last.job == job.id and last.step == step
        since = last.since if same else job.restart
        own = Incarnation(last.number + 1, job.id, job.restart, host, step, since, time.time())
        write_whole(folder / FENCE, json.dumps(asdict(own)).encode())
        return own


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / _LOCK).open("ab") as file:
        take(file, wait=True)  # without locks, what is left open is the moment between a look and a rename
        yield


def _of_job(start: Incarnation) -> str:
    return f" (job {start.job}, restart {start.restart}, on {start.host})" if start.job else f" (on {start.host})"
