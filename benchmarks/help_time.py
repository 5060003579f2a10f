"""Wall time of `pose --help`: settings import no torch, so help is there within a second."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from cluster.bench.about import about

RUNS = 5
TARGET_S = 1.0


def main() -> int:
    """Run `pose --help` five times; print a JSON line and a table row; 1 when the median misses the target."""
    pose = Path(sys.executable).with_name("pose")
    print(json.dumps({"about": about()}), flush=True)
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run([pose, "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(round(time.perf_counter() - began, 3))
    median = statistics.median(seconds)
    print(json.dumps({"bench": "help_time", "median_s": median, "runs_s": seconds, "target_s": TARGET_S}))
    print(f"| `pose --help`, median of {RUNS} | {median:.2f} s | under {TARGET_S:.0f} s |")
    return int(median > TARGET_S)


if __name__ == "__main__":
    sys.exit(main())
