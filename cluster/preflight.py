"""What can be refused before a process is started or a GPU second is spent."""

from dataclasses import replace

from cluster.config import load
from cluster.data import open_data
from cluster.run_folder import RUN_YAML
from cluster.settings import Run
from cluster.weights import check_start
from shards.order import share


def check(run: Run, world_size: int) -> None:
    """Refuse a run whose data, batch, first weights or folder do not fit a world; weights are downloaded here.

    Raises:
        InputError: one line that says what is wrong and what would fit.
    """
    open_data(replace(run, batch=replace(run.batch, global_=global_batch(run, world_size))))
    share(0, global_batch(run, world_size) // run.batch.micro, 0, world_size)
    if not any((run.folder / "checkpoints").glob("step-*")):  # else it goes on from its own weights
        check_start(run)


def global_batch(run: Run, world_size: int) -> int:
    """Samples of an optimiser step: the setting; left open, what the run was started with, else micro x ranks."""
    kept = run.folder / RUN_YAML
    if not run.batch.global_ and kept.is_file():
        return load(Run, kept).batch.global_
    return run.batch.global_ or run.batch.micro * world_size
