"""What was submitted from here: one small file for each job, beside its logs. No torch here."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cluster.tracking.files import read_json, write_json
from poselib.errors import InputError

SUFFIX: Final = ".job.json"


@dataclass(frozen=True)
class JobRecord:
    """One job, or one task of an array.

    Attributes:
        id: Slurm's, `123` or `123_4`; of a local job, the process'.
        name: as submitted.
        executor: `slurm` or `local`.
        host: from which it was submitted.
        submitted: seconds since 1970.
        logs: a file for each rank, absolute.
        run: the folder of the run that it works on, absolute; empty for other jobs.
        labelled: whether one file holds what all ranks say, each line with its rank in front.
    """

    id: str
    name: str
    executor: str
    host: str
    submitted: float
    logs: tuple[str, ...]
    run: str = ""
    labelled: bool = False

    @property
    def label(self) -> str:
        """What the job is about."""
        return Path(self.run).name if self.run else self.name


def write_record(folder: Path, record: JobRecord) -> None:
    """Keep a record in the folder of the job's logs."""
    write_json(folder / f"{record.id}{SUFFIX}", asdict(record))


def read_records(jobs_dir: Path) -> list[JobRecord]:
    """All records in and below a folder, the newest first; damaged ones are passed over.

    Raises:
        InputError: there is no such folder.
    """
    if not jobs_dir.is_dir():
        raise InputError(f"{jobs_dir} is not a folder; give the one that jobs were submitted with (their job.folder)")
    found = []
    for path in jobs_dir.rglob(f"*{SUFFIX}"):
        content = read_json(path)
        try:
            found.append(JobRecord(**content | {"logs": tuple(content["logs"])}))
        except (KeyError, TypeError):
            continue
    return sorted(found, key=lambda record: (-record.submitted, _number(record.id)))


def matching(records: Sequence[JobRecord], job: str) -> list[JobRecord]:
    """The jobs that a word names: an id, an array's id, or the newest submission of a name.

    Raises:
        InputError: none.
    """
    by_id = [record for record in records if job in (record.id, record.id.partition("_")[0])]
    if by_id:
        return by_id
    named = [record for record in records if job in (record.name, record.label)]
    if not named:
        known = ", ".join(record.id for record in records[:5]) or "none"
        raise InputError(f"no job {job!r} was submitted from here; the newest are {known}; see `pose jobs`")
    array = named[0].id.partition("_")[0]
    return [record for record in named if record.id.partition("_")[0] == array]


def _number(job_id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in job_id.split("_") if part.isdecimal())
