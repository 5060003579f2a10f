"""Weak scaling over 1, 2 and 4 nodes of the Slurm lab: the share of a step that its exchange takes.

The lab's nodes are namespaces of this machine, so they share its cores: absolute speed means nothing there, and ranks
that wait for a core count as exchange too. What shows is that a step stays the same work per rank, and how the share
answers to a setting: fp32 against bf16 gradients.

    python benchmarks/weak_scaling.py [--nodes 1 2 4] [--rounds 3]      (root, and what tests/setup.sh installs)
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.bench.about import about

ROOT = Path(__file__).parents[1]
MODEL = ("--model.backbone", "resnet18", "--model.width", "32", "--model.crop_width", "64", "--model.crop_height", "64")
HEAD = ("--model.depth", "8", "--model.decoder_channels", "64", "--model.decoder_layers", "2")
COMMON = ("--batch.micro", "8", "--engine.device", "cpu", "--engine.threads", "1", "--steps", "4")


def measure(nodes: int, exchange: str, rounds: int, lab: object) -> dict[str, Any]:
    """What rank 0 says of a job of that many nodes, one rank each."""
    script = ["#!/bin/sh", f"srun --ntasks-per-node=1 --kill-on-bad-exit {sys.executable} -W ignore -m pose bench \\"]
    words = [*MODEL, *HEAD, *COMMON, "--engine.exchange", exchange, "--rounds", str(rounds)]
    with tempfile.TemporaryDirectory() as folder:
        job_script = Path(folder) / "bench.sh"
        job_script.write_text("\n".join([*script, " ".join(words)]) + "\n")
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        job = lab.sbatch(f"--nodes={nodes}", job_script, cwd=Path(folder), env=environment)  # type: ignore[attr-defined]
        lab.wait(job, "COMPLETED", seconds=600)  # type: ignore[attr-defined]
        lines = [line for line in lab.output(job).splitlines() if line.startswith("{")]  # type: ignore[attr-defined]
    return json.loads(lines[-1])


def main() -> None:
    """Print JSON lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps({"about": about()}), flush=True)
    sys.path.append(str(ROOT / "tests" / "slurm"))
    from lab import Lab, missing

    if reason := missing():
        sys.exit(reason)
    table = Table("nodes", "exchange", "ms a step", "rounds", "share of the exchange", "doubt")
    with Lab(nodes=max(arguments.nodes)) as lab:
        for nodes in arguments.nodes:
            for exchange in ("fp32", "bf16") if nodes > 1 else ("fp32",):
                found = measure(nodes, exchange, arguments.rounds, lab)
                print(json.dumps({"nodes": nodes, "exchange": exchange} | found), flush=True)
                step = found["step_s"]
                rounds = f"{1e3 * step['least']:.0f} to {1e3 * step['most']:.0f}"
                share = f"{found['exchange_share']:.1%}"
                table.add_row(str(nodes), exchange, f"{1e3 * step['median']:.0f}", rounds, share, found["doubt"])
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
