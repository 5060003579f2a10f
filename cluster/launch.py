"""Start the ranks of a run: none are started where Slurm, submitit or torchrun already did."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Final

from cluster.config import dump
from cluster.settings import Run
from cluster.world import World, current_world, free_port
from poselib.errors import InputError

_GRACE_S: Final = 30.0
"""How long the other ranks get to end after one has failed."""

_KEEP_PAGES: Final = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
"""glibc keeps what a step has freed for the next one. By default activations go back to the kernel and are faulted in
again at every step, which cost a small network on the CPU a sixth of its speed."""


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
        ranks = run.engine.ranks or _default_ranks(run.engine.device)
        if ranks > 1:
            from cluster.preflight import check

            check(run, ranks)
            _start_ranks(run, ranks)
            return
        world = World(port=free_port())
    os.environ |= world.variables()
    from cluster.train import train_rank

    train_rank(run, world)


def _default_ranks(device: str) -> int:
    """One rank per GPU; without GPUs two where two cores are, so that the distributed way is the usual way."""
    if device != "cpu" and Path("/proc/driver/nvidia").exists():
        import torch

        if torch.cuda.is_available():
            return torch.cuda.device_count()
    return min(2, len(os.sched_getaffinity(0)))


def _start_ranks(run: Run, ranks: int) -> None:
    """Start the ranks as processes of this machine; pass signals on; when one fails, end all."""
    port = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix=f"{run.name}-") as file:
        file.write(dump(run))
        file.flush()
        command = [sys.executable, "-m", "pose", "train", "--config", file.name]
        processes = [
            subprocess.Popen(
                command, env=_KEEP_PAGES | os.environ | World(rank, ranks, rank, ranks, port=port).variables()
            )
            for rank in range(ranks)
        ]

        def forward(number: int, _frame: FrameType | None) -> None:
            for process in processes:
                if process.poll() is None:
                    process.send_signal(number)

        # Ctrl-C reaches the whole foreground group by itself; the ranks stop at a step boundary.
        previous = {s: signal.signal(s, forward) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
        previous[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            _wait(processes)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            for process in processes:
                process.kill()


def _wait(processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for all; after the first failure the others get `_GRACE_S`."""
    deadline: float | None = None
    while any(process.poll() is None for process in processes):
        if deadline is None and any(process.returncode for process in processes):
            deadline = time.monotonic() + _GRACE_S
            for process in processes:
                if process.returncode is None:
                    process.terminate()
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(0.1)
    failed = [f"rank {rank}: {_ending(p.returncode)}" for rank, p in enumerate(processes) if p.returncode]
    if failed:
        raise RankFailed(f"training ended early ({', '.join(failed)}); the last complete checkpoint is kept")


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
