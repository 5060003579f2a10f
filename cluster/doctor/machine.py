"""What one machine has: memory, disks, limits, InfiniBand. Read from the kernel, in milliseconds."""

import os
import re
import resource
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cluster.doctor.finding import Finding

GB: Final = 10**9
_FREE_MEMORY: Final = 4 * GB
_SHARED_MEMORY: Final = 512 * 2**20
_LITTLE_DISK: Final = 20 * GB
_NO_DISK: Final = 1 * GB
_OPEN_FILES: Final = 1024


def check_machine(folders: Sequence[Path], root: Path = Path("/")) -> list[Finding]:
    """The findings of this machine; `root` is where `proc`, `sys` and `dev` stand."""
    ports = infiniband_ports(root)
    memlock = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    shm = root / "dev/shm"
    return [
        _cores(len(os.sched_getaffinity(0))),
        _memory((root / "proc/meminfo").read_text()),
        shared_memory(shutil.disk_usage(shm).total if shm.is_dir() else 0),
        *(disk(folder, shutil.disk_usage(folder).free) for folder in dict.fromkeys(map(existing, folders))),
        disk(Path(tempfile.gettempdir()), shutil.disk_usage(tempfile.gettempdir()).free, "temporary files"),
        open_files(files),
        infiniband(ports),
        locked_memory(memlock, bool(ports)),
    ]


def existing(folder: Path) -> Path:
    """The folder, absolute, or the nearest one above it that exists."""
    folder = folder.expanduser().absolute()
    return folder if folder.is_dir() else existing(folder.parent)


def shared_memory(size: int) -> Finding:
    """Judge the bytes of /dev/shm, through which ranks of one node talk."""
    if size >= _SHARED_MEMORY:
        return Finding("shared memory", "ok", _amount(size))
    advice = "mount /dev/shm larger (containers: --shm-size=8g); NCCL's ranks of one node talk through it"
    return Finding("shared memory", "warn", f"only {_amount(size)}", advice)


def disk(folder: Path, free: int, name: str = "") -> Finding:
    """Judge the free bytes of a folder's file system."""
    check = f"disk, {name or folder}"
    if free >= _LITTLE_DISK:
        return Finding(check, "ok", f"{_amount(free)} free")
    advice = f"make room in {folder}, or choose another folder; `pose runs gc` lists what old runs could free"
    return Finding(check, "warn" if free >= _NO_DISK else "fail", f"only {_amount(free)} free", advice)


def open_files(limit: int) -> Finding:
    """Judge the limit of open files; shard sets keep up to 512 open."""
    if limit == resource.RLIM_INFINITY or limit >= _OPEN_FILES:
        return Finding("open files", "ok", "no limit" if limit == resource.RLIM_INFINITY else f"up to {limit}")
    return Finding("open files", "warn", f"only {limit}", f"ulimit -n {_OPEN_FILES} or more before the run")


def locked_memory(limit: int, has_infiniband: bool) -> Finding:
    """Judge the limit of locked memory (bytes), which InfiniBand needs and nothing else."""
    if limit == resource.RLIM_INFINITY:
        return Finding("locked memory", "ok", "no limit")
    if not has_infiniband:
        return Finding("locked memory", "ok", f"{_amount(limit)}, enough without InfiniBand")
    advice = "ulimit -l unlimited; under Slurm LimitMEMLOCK=infinity for slurmd, PropagateResourceLimitsExcept=MEMLOCK"
    return Finding("locked memory", "fail", f"{_amount(limit)}, and InfiniBand wants no limit", advice)


def infiniband_ports(root: Path = Path("/")) -> dict[str, str]:
    """The state of each InfiniBand or RoCE port, such as `{"mlx5_0/1": "ACTIVE"}`."""
    states = sorted((root / "sys/class/infiniband").glob("*/ports/*/state"))
    return {f"{file.parts[-4]}/{file.parts[-2]}": file.read_text().split(":")[-1].strip() for file in states}


def infiniband(ports: dict[str, str]) -> Finding:
    """Judge the ports; a machine without any is no worse for it."""
    if not ports:
        return Finding("InfiniBand", "ok", "none")
    active = [name for name, state in ports.items() if state == "ACTIVE"]
    if active:
        return Finding("InfiniBand", "ok", f"{len(active)} of {len(ports)} ports active")
    advice = "ask the site; until then NCCL_IB_DISABLE=1 keeps NCCL on Ethernet"
    return Finding("InfiniBand", "warn", f"{len(ports)} ports, none active", advice)


def _cores(count: int) -> Finding:
    advice = "ask Slurm for more (--cpus-per-gpu=8, say): decoding and the loop need two at least"
    return Finding("CPU cores", "ok" if count > 1 else "warn", str(count), "" if count > 1 else advice)


def _memory(meminfo: str) -> Finding:
    found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo)
    free = int(found[1]) * 1024 if found else 0
    if free >= _FREE_MEMORY:
        return Finding("memory", "ok", f"{_amount(free)} available")
    return Finding("memory", "warn", f"only {_amount(free)} available", "end what else runs here, or ask for more")


def _amount(count: int) -> str:
    """Bytes in words."""
    if count < GB:
        return f"{count >> 20} MiB"
    return f"{count / GB:.0f} GB" if count >= 10 * GB else f"{count / GB:.1f} GB"
