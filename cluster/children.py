"""Processes that this one starts and waits for: signals are passed on, and when one fails all end."""

import ctypes
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final

_GRACE_S: Final = 30.0
"""How long the others get to end after one has failed."""

_PR_SET_PDEATHSIG: Final = 1


def run_children(children: Sequence[tuple[Sequence[str], Mapping[str, str]]]) -> list[int]:
    """Run commands, each with its environment, at the same time; returns their exit codes.

    TERM, USR1 and USR2 are passed on. Ctrl-C reaches the whole foreground group by itself, so it is ignored here: the
    children decide how to end. After the first failure the others get TERM, and KILL after 30 s.
    """
    processes = [subprocess.Popen(command, env=dict(environment)) for command, environment in children]

    def forward(number: int, _frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    previous = {s: signal.signal(s, forward) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    previous[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _wait(processes)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for process in processes:
            process.kill()
            process.wait()
    return [process.returncode for process in processes]


def end_with_parent() -> None:
    """Have Linux send this process TERM when the one that started it dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def describe_ending(code: int) -> str:
    """An exit code in words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _wait(processes: list[subprocess.Popen[bytes]]) -> None:
    deadline: float | None = None
    while any(process.poll() is None for process in processes):
        if deadline is None and any(process.returncode for process in processes):
            deadline = time.monotonic() + _GRACE_S
            for process in processes:
                if process.returncode is None:
                    process.terminate()
        if deadline is not None and time.monotonic() > deadline:
            return
        time.sleep(0.1)
