"""What can be refused before a process is started or a GPU second is spent."""

from cluster.data import open_data
from cluster.settings import Run
from shards.order import share


def check(run: Run, world_size: int) -> None:
    """Refuse a run whose data, batch or folder do not fit a world.

    Raises:
        InputError: one line that says what is wrong and what would fit.
    """
    open_data(run)
    share(0, global_batch(run, world_size) // run.batch.micro, 0, world_size)


def global_batch(run: Run, world_size: int) -> int:
    """Samples of an optimiser step: the setting, or micro x ranks where it is left open."""
    return run.batch.global_ or run.batch.micro * world_size
