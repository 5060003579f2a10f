"""`runs/<name>/`: whose it is, and whether a run may go on in it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Final, Literal

from cluster.config import dump, flatten, load
from cluster.fence import read_incarnation
from cluster.settings import Run
from cluster.world import NO_JOB, Job
from poselib.errors import InputError
from shards.atomic import write_whole
from shards.locks import Taken, take

RUN_YAML: Final = "run.yaml"
_LOCK: Final = ".lock"
_NO_LOCKS: Final = "its file system has no locks (flock), so nothing keeps a second `pose train` of this run out"

_MAY_CHANGE: Final = (
    *("engine.ranks", "engine.device", "engine.threads", "engine.timeout_s", "engine.zero_stage"),
    *("engine.channels_last", "engine.compile", "engine.cuda_graphs", "engine.fused_optimizer"),
    *("engine.activation_checkpointing", "engine.bucket_mb", "engine.overlap"),
    *("loader.", "tracking.", "checkpoint.", "restart."),
    *("log_every", "runs_dir", "name", "epochs", "validate_every"),
)
"""Settings that do not change what a step computes: another value may resume a run."""


def claim(run: Run, global_batch: int, shard_window: Literal["auto", "full"] | int = "full") -> Run:
    """Make the run's folder, or check that what stands there is the same run; returns the settings to use.

    Args:
        run: as the user gave it.
        global_batch: samples of a step if this is the first start; the folder's own value wins.
        shard_window: what `auto` means if this is the first start; the folder's own value wins.

    Raises:
        InputError: the folder holds a run with other settings, or cannot be written.
    """
    run = going_on(run)
    if not run.batch.global_:
        run = replace(run, batch=replace(run.batch, global_=global_batch))
    if run.data.shard_window == "auto":
        run = replace(run, data=replace(run.data, shard_window=shard_window))
    with _writable(run.folder):
        write_whole(run.folder / RUN_YAML, dump(run).encode())
    return run


def going_on(run: Run) -> Run:
    """`run` with what the first start in its folder has fixed; as it is where there was none. Nothing is written.

    Raises:
        InputError: the folder holds a run with other settings.
    """
    path = run.folder / RUN_YAML
    if not path.is_file():
        return run
    earlier = load(Run, path)
    if not run.batch.global_:
        run = replace(run, batch=replace(earlier.batch, last=run.batch.last))
    if run.data.shard_window == "auto":
        run = replace(run, data=replace(run.data, shard_window=earlier.data.shard_window))
    _check_same(run, earlier)
    return run


def check_writable(folder: Path) -> None:
    """Refuse a folder that could not be made or written, as far as that can be told without writing.

    Raises:
        InputError: names the folder.
    """
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise InputError(f"{folder} cannot be written ({nearest} is closed to it); set runs_dir to a folder that can")


@contextmanager
def held(folder: Path, job: Job = NO_JOB) -> Iterator[None]:
    """Hold a run's folder against a second start of the same run, on this node or on one that shares the files.

    An earlier start of the same Slurm job, which a network cut has kept alive, does not count: its lock is put aside,
    and the fence keeps it from writing.

    Raises:
        InputError: somebody else holds it.
    """
    with _writable(folder):
        file, taken = _open(folder / _LOCK)
    if taken == "no locks here":
        print(f"{folder}: {_NO_LOCKS}", file=sys.stderr, flush=True)
    if taken == "busy":
        file.close()
        holder = read_incarnation(folder)
        if not (job.id and holder.job == job.id and holder.restart < job.restart):
            raise InputError(f"{folder} is being trained by another process; wait for it or stop it")
        beside = folder / f"{_LOCK}.{job.id}.{job.restart}"
        file, _ = _open(beside)
        beside.replace(folder / _LOCK)
    with file:
        yield


def _open(path: Path) -> tuple[IO[str], Taken]:
    """Open a file, and lock it if nobody has."""
    file = path.open("w")
    try:
        return file, take(file)
    except OSError:
        file.close()
        raise


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Make a folder, and say in one line where it, or what the block writes, cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = f"{folder} cannot be written ({error.strerror}); set runs_dir to a folder that can"
        raise InputError(reason) from error


def _check_same(run: Run, earlier: Run) -> None:
    """Refuse to mix two different runs in one folder."""
    before, now = flatten(earlier), flatten(run)
    changed = [
        f"{key} {before.get(key)} -> {value}"
        for key, value in now.items()
        if not key.startswith(_MAY_CHANGE) and before.get(key) != value
    ]
    if changed:
        raise InputError(
            f"{run.folder} holds a run with other settings ({'; '.join(changed[:4])}); give this one another name, or"
            " remove the folder"
        )
