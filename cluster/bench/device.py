"""A device: waiting for it, its memory, and what it can do at most."""

import contextlib
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import torch

_STATUS: Final = Path("/proc/self/status")


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def begin_peak(device: torch.device) -> None:
    """Let the peak begin anew: on a CPU at what is resident now, where Linux lets a process say so."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> float:
    """Bytes at the peak; of the device's allocator, or resident ones on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    for line in _STATUS.read_text().splitlines() if _STATUS.exists() else ():
        if line.startswith("VmHWM"):
            return 1024.0 * int(line.split()[1])
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def ceilings(device: torch.device) -> dict[str, float]:
    """What the device can do: FLOP/s of large matrix products by type, bytes/s of a copy, and of one from the host.

    On a GPU of compute capability 8.0 or more, cuDNN's fp32 convolutions use TF32, so that has a ceiling of its own.
    """
    cuda = device.type == "cuda"
    side, room = (8192, 2**30) if cuda else (1024, 2**26)
    found = {"fp32": _products(device, torch.float32, side), "bf16": _products(device, torch.bfloat16, side)}
    if cuda and torch.cuda.get_device_capability(device) >= (8, 0):
        with _tf32():
            found["tf32"] = _products(device, torch.float32, side)
    source = torch.zeros(room, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    found["bytes"] = 2 * room / _best(device, target.copy_, source)
    if cuda:
        found["from_host"] = (
            room / 8 / _best(device, target[: room // 8].copy_, torch.zeros(room // 8, dtype=torch.uint8))
        )
    return found


def ceiling_of(precision: str, found: dict[str, float]) -> str:
    """The name of the ceiling that convolutions in `precision` have."""
    return "tf32" if precision == "fp32" and "tf32" in found else precision


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _products(device: torch.device, dtype: torch.dtype, side: int) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _best(device, torch.mm, a, b)


def _best(device: torch.device, act: Callable[..., Any], *arguments: Any) -> float:
    times = []
    for _ in range(12):
        began = time.perf_counter()
        act(*arguments)
        wait(device)
        times.append(time.perf_counter() - began)
    return min(times[2:])
