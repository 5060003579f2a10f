"""What slurm/train.sh keeps of its job at the first start. No torch here.

runs/jobs/<job>.job.json  the record by which `pose jobs` and `pose logs` know the job
runs/jobs/<job>.yaml      the run's settings, resolved
runs/jobs/<job>.start     lines for the batch script: the code's copy, and the words for `pose train`

A job that is requeued reads the last of these, so that nothing that was edited meanwhile reaches it.
"""

import os
import socket
import time
from typing import Final

from cluster.config import dump
from cluster.job_records import JobRecord, write_record
from cluster.settings import Run
from cluster.settings_submit import JobsSettings
from cluster.snapshot import take_snapshot
from cluster.world import current_allocation, current_job
from poselib.errors import InputError
from shards.atomic import write_whole

_LOG: Final = "/proc/self/fd/1"


def begin(run: Run) -> None:
    """`pose job begin`: keep the settings and a copy of the code for all starts of this job, and a record of it.

    Raises:
        InputError: there is no job around, or the run's folder cannot be written.
    """
    allocation, job = current_allocation(), current_job()
    if allocation is None:
        raise InputError("this is for batch scripts: outside Slurm there is no job to keep a record of")
    folder = JobsSettings().jobs_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    variables = take_snapshot(run.folder).environment()
    spec = folder / f"{job.id}.yaml"
    write_whole(spec, dump(run).encode())
    lines = [*(f"set {name}={value}" for name, value in variables.items()), "word --config", f"word {spec}"]
    # Slurm's own number, which the script knows; in an array it is not the task's.
    write_whole(folder / f"{allocation.job}.start", ("\n".join(lines) + "\n").encode())
    log = os.path.realpath(_LOG)
    host, now, of_run = socket.gethostname(), time.time(), str(run.folder.absolute())
    write_record(folder, JobRecord(job.id, f"train-{run.name}", "slurm", host, now, (log,), of_run, labelled=True))
