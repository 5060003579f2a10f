"""One rank of a training: it meets the others, rank 0 claims the run's folder, they train, and leave."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import torch
import torch.distributed as dist

from cluster.agreement import check_alike, from_main, stay_until_main
from cluster.data import shard_window
from cluster.endings import LostOthers, SaidByMain, TryAgain, in_words
from cluster.engine.engine import check_precision, choose_device, join_world, leave_world
from cluster.engine.levers import check_levers
from cluster.fence import Fence, fruitless_starts, newest_step, raise_fence
from cluster.preemption import StopFlag
from cluster.preflight import check, global_batch
from cluster.run_folder import claim, held
from cluster.settings import Run
from cluster.snapshot import record_start
from cluster.train import Training
from cluster.world import World, current_job, node_name
from poselib.errors import InputError

_LOST_PEER: Final = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting"),  # Gloo
    *("ncclRemoteError", "remote process exit", "communicator was aborted", "collective operation timeout"),  # NCCL
)
"""Gloo and NCCL report a peer that is gone in words; whoever went has said why."""
_PATIENCE_S: Final = 30.0


def train_rank(run: Run, world: World, stop: StopFlag, note: Callable[[str, bool], None]) -> None:
    """Be one rank of a training: everything from the folder to the last line.

    Args:
        run: as the user gave it.
        world: this process' place.
        stop: raised when the training shall stop at the next step.
        note: told the last words of a rank that hangs, and whether others are to blame.

    Raises:
        LostOthers: other ranks are gone.
        TryAgain: a file could not be written or read, or the ranks did not meet.
        NeverAgain: a newer start of this run is at work.
        InputError: what was asked for cannot be done.
        SaidByMain: one of these, elsewhere than on rank 0, where all ranks know of it.
    """
    device = choose_device(run.engine.device, world.local_rank)
    try:
        _join(run, world, device)
        with ExitStack() as stack:
            check_alike(world)
            run, number = from_main(lambda: _claim(run, world, device, stack), world)
            stop.listen()
            Training(run, world, device, Fence(run.folder, number), note).run_to_end(stop)
    except SaidByMain:
        stay_until_main(world, _PATIENCE_S)  # `srun` ends all as soon as one has failed: rank 0 shall have said why
        raise
    except RuntimeError as error:
        if world.size > 1 and _tells_of_others(error):
            raise LostOthers(f"rank {world.rank} lost the other ranks: {_first_line(error)}") from error
        raise
    except OSError as error:
        raise TryAgain(f"rank {world.rank} on {node_name()}: {in_words(error)}") from error
    finally:
        leave_world()


def _join(run: Run, world: World, device: torch.device) -> None:
    """Meet the other ranks.

    Raises:
        LostOthers: they did not come in time.
        TryAgain: the port is taken, or the network is not as the settings and variables say.
    """
    try:
        join_world(world, run.engine, device)
    except RuntimeError as error:
        where = f"{world.address}, port {world.port}"
        if "EADDRINUSE" in str(error):
            advice = "a new start takes another port, unless MASTER_PORT is set in the job's environment"
            raise TryAgain(f"{where}: taken on {node_name()}; {advice}") from error
        words = f"rank {world.rank} on {node_name()} did not meet the others at {where}: {_first_line(error)}"
        raise (LostOthers if _tells_of_others(error) else TryAgain)(words) from error


def _tells_of_others(error: RuntimeError) -> bool:
    """Whether an error of the network speaks of other ranks that are gone or have not come."""
    stores = (dist.DistNetworkError, dist.DistStoreError)
    return isinstance(error, stores) or any(words in str(error) for words in _LOST_PEER)


def _first_line(error: RuntimeError) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _claim(run: Run, world: World, device: torch.device, stack: ExitStack) -> tuple[Run, int]:
    """Check what the run needs, hold its folder until `stack` closes, claim it, and become its newest start."""
    check_precision(run.engine.precision, device)
    check_levers(run.engine, device)
    check(run, world.size)
    job = current_job()
    stack.enter_context(held(run.folder, job))
    run = claim(run, global_batch(run, world.size), shard_window(run))
    fruitless = fruitless_starts(run.folder, job) - 1 if job.restart else 0
    if fruitless >= run.restart.limit:
        raise InputError(
            f"{run.folder}: {fruitless} starts in a row have made no checkpoint after step {newest_step(run.folder)};"
            " mend what they name and submit again, or set restart.limit"
        )
    number = raise_fence(run.folder, job, node_name()).number
    record_start(run.folder)
    return run, number
