"""Start-up time and memory of the order at the size of all of Human3.6M and a thousand ranks.

Each rank measured is a fresh process: seconds from the settings to the first micro-batch's samples, and the growth of
the process' peak memory over the imports, through the end of an epoch, where the permutations of two passes are held.
`--child RANK CASE` is that process.

    python benchmarks/order_scale.py [--samples 3600000] [--world 1024]
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cluster.bench.about import about
from shards.order import Order, share, slots_per_epoch

MICRO, MPII, SHARDS, TARGET_S, TARGET_MB = 24, 28_821, 840, 1.0, 100.0
CASES = ("human3.6m", "concatenated", "1:1", "window of 32")


def peak_mb() -> float:
    """The peak of this process' resident memory."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def make_order(case: str, samples: int, world: int) -> Order:
    """The order of a run over `samples` of Human3.6M, with MPII or without."""
    sizes = (samples,) if case in ("human3.6m", "window of 32") else (samples, MPII)
    per_epoch = slots_per_epoch(sizes, (1.0, 1.0) if case == "1:1" else ())
    each = [samples // SHARDS] * (SHARDS - 1)
    shards = ((*each, samples - sum(each)),)
    window = 32 if case == "window of 32" else 0
    return Order(0, sizes, per_epoch, MICRO, MICRO * world, "wrap", window, shards if window else ())


def measure(rank: int, case: str, samples: int, world: int) -> dict[str, float]:
    """One rank: start-up, a micro-batch once started, memory."""
    before = peak_mb()
    began = time.perf_counter()
    order = make_order(case, samples, world)
    order.micro_batch(share(0, world, rank, world)[0])
    started = time.perf_counter() - began
    began = time.perf_counter()
    steps = min(100, order.epoch_size // order.step)
    for step in range(steps):
        order.micro_batch(share(step, world, rank, world)[0])
    each = (time.perf_counter() - began) / max(1, steps)
    order.micro_batch(share(order.epoch_size // order.step + 1, world, rank, world)[0])
    return {"start_s": round(started, 3), "micro_batch_ms": round(1e3 * each, 3), "mb": round(peak_mb() - before, 1)}


def main() -> None:
    """Print JSON lines, a table and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=3_600_000)
    parser.add_argument("--world", type=int, default=1024)
    parser.add_argument("--child", nargs=2, metavar=("RANK", "CASE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        rank, case = arguments.child
        print(json.dumps(measure(int(rank), case, arguments.samples, arguments.world)))
        return
    print(json.dumps({"about": about()}), flush=True)
    table = Table("order", "rank", "start-up s", "micro-batch ms", "MB")
    worst_s = worst_mb = 0.0
    for case in CASES:
        for rank in sorted({0, arguments.world // 2, arguments.world - 1}):
            command = [sys.executable, __file__, *sys.argv[1:], "--child", str(rank), case]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            worst_s, worst_mb = max(worst_s, found["start_s"]), max(worst_mb, found["mb"])
            print(json.dumps({"order": case, "rank": rank, "world": arguments.world, **found}))
            table.add_row(case, str(rank), *(f"{value:g}" for value in found.values()))
    held = worst_s < TARGET_S and worst_mb < TARGET_MB
    console = Console(stderr=True)
    console.print(table)
    console.print(
        f"slowest start {worst_s:.2f} s (target: under {TARGET_S:g}), most memory {worst_mb:.0f} MB (target: under"
        f" {TARGET_MB:g}): {'held' if held else 'MISSED'}"
    )
    sys.exit(not held)


if __name__ == "__main__":
    main()
