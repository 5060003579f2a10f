"""`pose profile`: a trace of a run's first steps, and in words what they spend their time on."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from rich.console import Console
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from cluster.bench.command import run_yaml
from cluster.bench.rank import Rank
from cluster.bench.settings import ProfileSettings
from cluster.data import open_data
from cluster.engine.engine import leave_world
from cluster.world import World, current_world, free_port
from shards.atomic import write_whole

LINES: Final = 25
STAGE: Final = "stage: "
"""Before a stage's name in the trace."""


def profile_run(settings: ProfileSettings) -> None:
    """Trace, write trace.json and summary.txt, and print the latter's first lines; of several ranks the first does.

    Raises:
        InputError: the run's data are not there, or this machine lacks what a setting asks for.
    """
    open_data(settings)
    world = current_world() or World(port=free_port())
    os.environ |= world.variables()
    console = Console(stderr=True, quiet=not world.is_main)
    try:
        with console.status(f"tracing {settings.steps} steps"):
            rank = Rank({"yaml": run_yaml(settings), "form": "ours", "loader": True})
            rank.warm_up()
            cuda = [ProfilerActivity.CUDA] if rank.device.type == "cuda" else []
            with profile(activities=[ProfilerActivity.CPU, *cuda]) as trace:
                began = time.perf_counter()
                for _ in range(settings.steps):
                    rank.take_step(_named)
                if cuda:
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - began
    finally:
        leave_world()
    if not world.is_main:
        return
    settings.out.mkdir(parents=True, exist_ok=True)
    trace.export_chrome_trace(str(settings.out / "trace.json"))
    text = summary(trace.key_averages(), settings.steps, seconds, rank.device.type == "cuda")
    write_whole(settings.out / "summary.txt", text.encode())
    console.print("\n".join(text.splitlines()[:5]), soft_wrap=True, highlight=False)
    console.print(f"look at {settings.out / 'summary.txt'}, and at trace.json there in Perfetto", soft_wrap=True)


def summary(events: Sequence[Any], steps: int, seconds: float, cuda: bool) -> str:
    """Time per step, what of it waited for data, the three largest costs, then stages and operators by their own time.

    Args:
        events: the profiler's averages.
        steps: traced.
        seconds: that they took.
        cuda: whether a GPU computed; then its kernels count, and not the operators that launched them.
    """
    own = "self_device_time_total" if cuda else "self_cpu_time_total"
    rows = sorted((e for e in events if _counts(e, cuda)), key=lambda row: getattr(row, own), reverse=True)
    whole = 1e6 * seconds
    stages = {
        row.key.removeprefix(STAGE): row.cpu_time_total
        for row in events
        if row.key.startswith(STAGE) and row.device_type == DeviceType.CPU
    }
    what = "kernels on the GPU" if cuda else "operators"
    lines = [
        f"{steps} steps, {1e3 * seconds / steps:.1f} ms each; the largest costs among {what}:",
        f"{stages.get('batch', 0.0) / whole:.0%} of the time waited for data",
    ]
    for place, row in enumerate(rows[:3], start=1):
        spent = getattr(row, own)
        lines.append(
            f"{place}. {row.key}: {spent / whole:.0%}, {spent / 1e3 / steps:.1f} ms a step in"
            f" {row.count / steps:.0f} calls"
        )
    lines += ["", f"{'stage, as the host sees it':48} {'ms a step':>10} {'share':>7}"]
    lines += [f"{name:48} {spent / 1e3 / steps:10.2f} {spent / whole:7.1%}" for name, spent in stages.items()]
    lines += ["", f"{what:48} {'ms a step':>10} {'share':>7} {'calls':>7}"]
    for row in rows[:LINES]:
        spent = getattr(row, own)
        lines.append(f"{row.key[:48]:48} {spent / 1e3 / steps:10.2f} {spent / whole:7.1%} {row.count / steps:7.0f}")
    return "\n".join(lines) + "\n"


def _counts(event: Any, cuda: bool) -> bool:
    """Whether a row has time of its own, as torch's own sums have it: no named ranges; of a GPU what ran on it."""
    return not event.is_user_annotation and (event.device_type != DeviceType.CPU) == cuda


def _named(stage: str, act: Callable[..., Any], *arguments: Any) -> Any:
    with record_function(STAGE + stage):
        return act(*arguments)
