"""Start the ranks of a run: none are started where Slurm, submitit or torchrun already did."""

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Final

from cluster.children import describe_ending, end_with_parent, run_children
from cluster.config import dump
from cluster.endings import (
    FINAL_CODES,
    TRY_AGAIN,
    Ending,
    LostOthers,
    NeverAgain,
    SaidByMain,
    TryAgain,
    note_ending,
)
from cluster.preemption import StopFlag
from cluster.settings import Run
from cluster.world import World, current_job, current_world, free_port, node_name
from poselib.errors import InputError

KEEP_PAGES: Final = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
"""glibc keeps what a step has freed for the next one. By default activations go back to the kernel and are faulted in
again at every step, which cost a small network on the CPU a sixth of its speed."""

_CUDA_TRACES: Final = ("/proc/driver/nvidia", "/dev/nvidia0", "/dev/dxg")
"""Where a driver shows itself; importing torch to ask takes seconds."""


class RankFailed(InputError):
    """A rank ended with an error; it has said why itself."""


def train(run: Run) -> None:
    """`pose train`: become a rank of the launcher's world, or start the ranks on this machine and wait for them.

    Raises:
        InputError: the data or the run's folder do not fit; nothing was started.
        RankFailed: a rank failed; all others were ended.
    """
    world = current_world()
    if world is None:
        ranks = run.engine.ranks or default_ranks(run.engine.device)
        if ranks > 1:
            from cluster.preflight import check

            check(run, ranks)
            _start_ranks(run, ranks)
            return
        world = World(port=free_port())
    elif world.launcher == "torchrun":
        end_with_parent()
    os.environ |= world.variables()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost rank is one line, not stacks of C++
    if world.launcher == "slurm":
        _be_rank_of_job(run, world)
        return
    from cluster.rank import train_rank

    train_rank(run, world, StopFlag(), lambda words, lost: None)


def _be_rank_of_job(run: Run, world: World) -> None:
    """Train, and end with a code that tells the batch script whether a new start may go better."""
    stop = StopFlag()
    stop.listen()  # before torch is imported: the default of these signals is to end the process at once
    from cluster.rank import train_rank

    host = node_name()

    def note(words: str, lost: bool, final: bool = False) -> None:
        note_ending(run.folder, current_job(), Ending(world.rank, host, words, lost, final))

    try:
        train_rank(run, world, stop, note)
    except SaidByMain as ending:
        note(ending.words, False, ending.code in FINAL_CODES)
        raise
    except TryAgain as error:
        note(str(error), isinstance(error, LostOthers))
        raise
    except InputError as error:
        note(str(error), False, True)
        raise NeverAgain(str(error)) from error
    except Exception as error:
        note(f"{type(error).__name__}: {error}", False)
        traceback.print_exc()
        print(f"rank {world.rank} on {host} failed as shown above", file=sys.stderr, flush=True)
        sys.exit(TRY_AGAIN)
    finally:
        stop.ignore()


def default_ranks(device: str) -> int:
    """One rank per GPU; without GPUs two where two cores are, so that the distributed way is the usual way."""
    if device != "cpu" and any(Path(trace).exists() for trace in _CUDA_TRACES):
        import torch

        if torch.cuda.is_available():
            return torch.cuda.device_count()
    return min(2, len(os.sched_getaffinity(0)))


def _start_ranks(run: Run, ranks: int) -> None:
    """Run the ranks as processes of this machine."""
    port = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix=f"{run.name}-") as file:
        file.write(dump(run))
        file.flush()
        command = [sys.executable, "-m", "pose", "train", "--config", file.name]
        worlds = [World(rank, ranks, rank, ranks, port=port) for rank in range(ranks)]
        codes = run_children([(command, KEEP_PAGES | os.environ | world.variables()) for world in worlds])
    failed = [f"rank {rank}: {describe_ending(code)}" for rank, code in enumerate(codes) if code]
    if failed:
        raise RankFailed(f"training ended early ({', '.join(failed)}); what it had completed is kept")
