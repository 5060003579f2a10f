"""`pose profile`: a trace of a run's first steps, and in words what they spend their time on."""

import os

import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from cluster.bench.command import run_yaml
from cluster.bench.settings import ProfileSettings
from cluster.bench.worker import Rank
from cluster.data import open_data
from cluster.engine.engine import leave_world
from cluster.world import World, free_port
from shards.atomic import write_whole

LINES = 25


def profile_run(settings: ProfileSettings) -> None:
    """Trace, write trace.json and summary.txt, and print the latter's first lines.

    Raises:
        InputError: the run's data are not there, or this machine lacks what a setting asks for.
    """
    open_data(settings)
    os.environ |= World(port=free_port()).variables()
    console = Console(stderr=True)
    try:
        with console.status(f"tracing {settings.steps} steps"):
            rank = Rank({"yaml": run_yaml(settings), "form": "ours", "loader": True})
            rank.steps(2)
            cuda = [ProfilerActivity.CUDA] if rank.device.type == "cuda" else []
            with profile(activities=[ProfilerActivity.CPU, *cuda]) as trace:
                rank.steps(settings.steps)
    finally:
        leave_world()
    settings.out.mkdir(parents=True, exist_ok=True)
    trace.export_chrome_trace(str(settings.out / "trace.json"))
    text = summary(trace, settings.steps, rank.device)
    write_whole(settings.out / "summary.txt", text.encode())
    console.print("\n".join(text.splitlines()[:4]), soft_wrap=True, highlight=False)
    console.print(f"look at {settings.out / 'summary.txt'}, and at trace.json there in Perfetto", soft_wrap=True)


def summary(trace: profile, steps: int, device: torch.device) -> str:
    """The three largest costs in a sentence each, then a table of the operators by their own time."""
    own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rows = sorted(trace.key_averages(), key=lambda row: getattr(row, own), reverse=True)
    whole = sum(getattr(row, own) for row in rows) or 1.0
    lines = [f"{steps} steps on {device.type}, {whole / 1e3 / steps:.1f} ms of operators a step; the largest costs:"]
    for place, row in enumerate(rows[:3], start=1):
        spent = getattr(row, own)
        lines.append(
            f"{place}. {row.key}: {spent / whole:.0%}, {spent / 1e3 / steps:.1f} ms a step in"
            f" {row.count / steps:.0f} calls"
        )
    lines += ["", f"{'operator':48} {'ms a step':>10} {'share':>7} {'calls':>7}"]
    for row in rows[:LINES]:
        spent = getattr(row, own)
        lines.append(f"{row.key[:48]:48} {spent / 1e3 / steps:10.2f} {spent / whole:7.1%} {row.count / steps:7.0f}")
    return "\n".join(lines) + "\n"
