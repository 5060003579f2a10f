"""Human3.6M's pose files: 32 joints in CDF, of which 17 are taken; damaged ones end in an error, never in a hang."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import cdflib
import numpy as np

from poselib.skeleton import H36M_FROM_RAW32

RAW_JOINTS: Final = 32
READING_S: Final = 20.0
"""Seconds of computing for a file that takes a tenth of one: records of damaged ones may point back to themselves."""


def read_poses(path: Path) -> np.ndarray:
    """The 17 joints of a pose file, `f 17 3` mm, world frame.

    Raises:
        ValueError: not a CDF file, or without the poses of 32 joints.
    """
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise ValueError("the pose file is missing, though videos of its recording are there") from error
    except OSError as error:
        raise ValueError(f"the pose file cannot be read ({error.strerror})") from error
    try:
        with _bounded(READING_S):
            raw = np.asarray(cdflib.CDF(path).varget("Pose"), dtype=np.float64)
    except Exception as error:  # cdflib lets whatever it meets in damaged bytes escape
        reason = str(error).replace(str(path), path.name)
        raise ValueError(f"no readable CDF file with a variable Pose ({type(error).__name__}: {reason})") from error
    if raw.size == 0 or raw.ndim == 0 or raw.shape[-1] != RAW_JOINTS * 3:
        raise ValueError(
            f"Pose must be 1 x frames x {RAW_JOINTS * 3}, found {' x '.join(map(str, raw.shape)) or 'one number'}"
        )
    return raw.reshape(-1, RAW_JOINTS, 3)[:, H36M_FROM_RAW32]


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Stop a block that computes for longer; waiting for disks does not count. Builders read in their main thread,
    others have no bound: Python gives signals to the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"its records lead nowhere, {seconds:g} s of computing were not enough")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1.0)  # again and again, should somebody catch the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
