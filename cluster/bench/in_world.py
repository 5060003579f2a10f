"""`srun pose bench`: each rank of a launcher's world measures, rank 0 tells. For weak scaling over nodes."""

import json
import os
from dataclasses import asdict

from cluster.bench.about import about
from cluster.bench.command import check_clock, exchange_share, run_yaml
from cluster.bench.rank import Rank
from cluster.bench.ratio import over_rounds
from cluster.bench.rounds import TIMES
from cluster.bench.settings import BenchSettings
from cluster.engine.engine import leave_world
from cluster.world import current_world
from poselib.errors import InputError
from shards.atomic import write_whole

ALONE = ("against", "revision", "reference", "scaling", "paper")
"""What only a bench that starts its own ranks does."""


def bench_in_world(settings: BenchSettings) -> None:
    """Time rounds of steps, then stages; a JSON line from rank 0.

    Raises:
        InputError: a setting asks for other forms, which no launcher's world can take turns with.
    """
    world = current_world()
    assert world is not None
    _refuse_others(settings)
    check_clock(settings)
    os.environ |= world.variables()
    rank = Rank({"yaml": run_yaml(settings), "form": "ours", "loader": settings.with_loader})
    try:
        rank.warm_up()
        seconds = [rank.steps(settings.steps)[TIMES[settings.clock]] for _ in range(settings.rounds)]
        stages = rank.stages(settings.steps * settings.rounds)
    finally:
        leave_world()
    if not world.is_main:
        return
    step = over_rounds(seconds)
    found = {"ranks": world.size, "step_s": asdict(step), "doubt": step.doubt(settings.most_spread)}
    report = about() | found | {"exchange_share": exchange_share(stages), "stages": stages}
    print(json.dumps(report), flush=True)
    if settings.out:
        write_whole(settings.out, (json.dumps(report, indent=1) + "\n").encode())


def _refuse_others(settings: BenchSettings) -> None:
    asked = [name for name in ALONE if getattr(settings, name)]
    if asked:
        raise InputError(
            f"{', '.join(asked)} must be left out under a launcher, where every rank measures the same one form; run"
            " pose bench outside of srun and torchrun for others"
        )
