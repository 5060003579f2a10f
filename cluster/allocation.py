"""What Slurm has allotted to this job, for code that runs before or beside its tasks.

With `cluster/world.py` the only place that reads Slurm's variables.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from poselib.errors import InputError

_INTERACTIVE_STEP: Final = 0xFFFFFFFA
"""Slurm's number of the step in which `salloc` may run a shell: no task of a run."""


@dataclass(frozen=True)
class Allocation:
    """A Slurm job, seen from inside.

    Attributes:
        job: its number.
        nodes: how many it has.
        gpus_on_node: GPUs that Slurm gave to this node of it; 0 where it gave none.
        in_task: whether this process is a task that `srun` started, not the batch script or a shell of `salloc`.
    """

    job: int
    nodes: int
    gpus_on_node: int
    in_task: bool


def current_allocation(environ: Mapping[str, str] = os.environ) -> Allocation | None:
    """The job that this process runs in, or None outside of Slurm.

    Raises:
        InputError: Slurm's variables are no numbers.
    """
    if not environ.get("SLURM_JOB_ID"):
        return None
    step = environ.get("SLURM_STEP_ID", "")
    try:
        return Allocation(
            job=int(environ["SLURM_JOB_ID"]),
            nodes=int(environ.get("SLURM_JOB_NUM_NODES", "1")),
            gpus_on_node=int(environ.get("SLURM_GPUS_ON_NODE", "0")),
            in_task=bool(step) and int(step) != _INTERACTIVE_STEP,
        )
    except ValueError as error:
        raise InputError(f"Slurm's variables are no numbers: {error}") from error
