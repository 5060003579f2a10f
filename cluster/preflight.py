"""What can be refused before a process is started or a GPU second is spent."""

from dataclasses import replace

from cluster.checkpoint_names import CHECKPOINTS, by_step
from cluster.config import load
from cluster.data import open_data
from cluster.run_folder import RUN_YAML, check_writable, going_on
from cluster.runs import is_held
from cluster.settings import Run
from cluster.weights import check_start
from poselib.errors import InputError
from shards.order import share


def check(run: Run, world_size: int) -> None:
    """Refuse a run whose data, batch, first weights or folder do not fit a world; weights are downloaded here.

    Raises:
        InputError: one line that says what is wrong and what would fit.
    """
    check_writable(run.folder)
    going_on(run)
    open_data(replace(run, batch=replace(run.batch, global_=global_batch(run, world_size))))
    share(0, global_batch(run, world_size) // run.batch.micro, 0, world_size)
    if not by_step(run.folder / CHECKPOINTS):  # else it goes on from its own weights
        check_start(run)


def check_free(run: Run) -> None:
    """Refuse a run that is being trained at this moment.

    Raises:
        InputError: it is.
    """
    if is_held(run.folder):
        behind = "submit with job.more {dependency: afterany:JOB}"
        raise InputError(f"{run.folder} is being trained now; wait for it, stop it, or {behind}")


def global_batch(run: Run, world_size: int) -> int:
    """Samples of an optimiser step: the setting; left open, what the run was started with, else micro x ranks."""
    kept = run.folder / RUN_YAML
    if not run.batch.global_ and kept.is_file():
        return load(Run, kept).batch.global_
    return run.batch.global_ or run.batch.micro * world_size
