"""`srun pose bench`: each rank of a launcher's world measures, rank 0 tells. For weak scaling over nodes."""

import json
import os
import statistics

from cluster.bench.command import run_yaml
from cluster.bench.settings import BenchSettings
from cluster.bench.worker import Rank
from cluster.engine.engine import leave_world
from cluster.world import current_world


def bench_in_world(settings: BenchSettings) -> None:
    """Time rounds of steps, then stages; a JSON line from rank 0."""
    world = current_world()
    assert world is not None
    os.environ |= world.variables()
    rank = Rank({"yaml": run_yaml(settings), "form": "ours", "loader": settings.with_loader})
    try:
        rank.steps(2)
        seconds = [rank.steps(settings.steps)["seconds"] for _ in range(settings.rounds)]
        stages = rank.stages(settings.steps * settings.rounds)
    finally:
        leave_world()
    if world.is_main:
        whole = sum(stages.values())
        found = {
            "ranks": world.size,
            "step_s": statistics.median(seconds),
            "least_s": min(seconds),
            "most_s": max(seconds),
        }
        print(json.dumps(found | {"exchange_share": stages["exchange"] / whole, "stages": stages}), flush=True)
