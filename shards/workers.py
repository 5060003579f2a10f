"""Work shared out to processes that end with the one that started them, however it ends."""

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final, TypeVar

import cv2

Task = TypeVar("Task")
Result = TypeVar("Result")

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 32 << 20
"""Larger than a picture, and the most that glibc takes for the second."""


def run(work: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """What `work` makes of each task, in the order of completion.

    Args:
        work: a picklable function; with one worker it runs in this process.
        tasks: picklable and small.
        workers: processes; 0 takes every core.
    """
    workers = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    if workers > 1:
        yield from _run(work, tasks, workers)
    else:
        yield from map(work, tasks)


def run_apart(work: Callable[[Task], Result], task: Task) -> tuple[Result, float]:
    """What `work` makes of a task in a process of its own, and that process' peak of resident memory in MiB."""
    (measured,) = _run(partial(_measured, work), [task], 1)
    return measured


def peak_mib() -> float:
    """The most memory that was ever resident in this process, MiB."""
    # Not getrusage: a process that was spawned takes over its parent's peak there.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _measured(work: Callable[[Task], Result], task: Task) -> tuple[Result, float]:
    return work(task), peak_mib()


def _run(work: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    spawn = multiprocessing.get_context("spawn")
    stop, stopper = spawn.Pipe(duplex=False)
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(stop,)) as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            stopper.close()
            pool.shutdown(cancel_futures=True)
            raise
    stopper.close()
    stop.close()


def _start_worker(stop: Connection) -> None:
    """Let a worker leave when the build stops or is killed: it would hang for ever, or write beside the next one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the build itself decides
    cv2.setNumThreads(1)  # a process per core is enough
    _keep_pages()
    parent = multiprocessing.parent_process()

    def leave() -> None:
        wait([stop, parent.sentinel] if parent else [stop])
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def _keep_pages() -> None:
    """Have glibc keep the memory of one picture for the next: given back, it is faulted in again page by page."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
