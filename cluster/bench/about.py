"""Where, when and with what a figure was measured: without them it is worth nothing."""

import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

from cluster.doctor.libraries import driver_version
from cluster.tracking.provenance import git_commit

_PACKAGES: Final = (
    *("torch", "deepspeed", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "triton", "numpy", "opencv-python-headless"),
)


def about() -> dict[str, Any]:
    """Date, machine, versions, commit (`-dirty` behind it where files are changed), command, load average."""
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{len(os.sched_getaffinity(0))} x {_processor()}",
        "gpu": _gpus(),
        "driver": driver_version(),
        "versions": {"python": platform.python_version()} | _versions(),
        "cuda": torch.version.cuda or "",
        "cudnn": str(cudnn or ""),
        "commit": git_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpus() -> list[str]:
    """Names, asked of the driver: torch would take hold of a GPU to tell."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
