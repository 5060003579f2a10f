"""What submitit runs in every rank of a training job. No torch here: signals are taken before it is imported."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster.config import load
from cluster.launch import train
from cluster.settings import Run
from cluster.submit import local_world
from poselib.errors import InputError


@dataclass(frozen=True)
class TrainTask:
    """What the ranks of a job train.

    Attributes:
        spec: the run's settings.
        port: where local ranks meet; 0 where Slurm has laid out the world.
    """

    spec: Path
    port: int = 0


def train_rank_of_job(task: TrainTask) -> None:
    """Be a rank. Under Slurm, end with a code that the batch script can act on, as `pose train` does.

    Raises:
        InputError: of a local job.
    """
    run = load(Run, task.spec)
    if task.port:
        os.environ |= local_world(task.port).variables()
        train(run)
        return
    try:
        train(run)
    except InputError as error:
        print(f"pose train: {error}", file=sys.stderr, flush=True)
        sys.exit(getattr(error, "exit_code", 1))
    # Not back into submitit: what it would still write can fail where an earlier start was killed while writing it.
    sys.exit(0)
