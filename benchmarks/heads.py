"""Every head and loss on the studio's people: the same network, data and number of steps, several seeds each.

Builds a small studio set and its shards in a folder of its own, then trains with `pose train` and scores with
`pose eval`, one run after the other. What is finished there stays: run it again to go on. The verdict is on the
probabilistic head: the mean of its test MPJPE at most 15 % above the integral head's. The people are synthetic; no
figure from here says anything about Human3.6M.

    python benchmarks/heads.py [--work data/heads] [--epochs 12] [--seeds 3] [--heads integral probabilistic]
        [--minutes 60]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cluster.bench.about import about

LIMIT = 1.15
"""The probabilistic head's MPJPE over the integral's, at most."""
CONFIG = """\
name: heads
runs_dir: {work}/runs
epochs: {epochs}
validate_every: {epochs}
log_every: 20
data: {{h36m: {work}/shards/h36m, mpii: {work}/shards/mpii, split: eth, every_train: 1, every_val: 2, every_test: 1}}
augment: {{flip: 0.5, color: 0.5}}
augment_mpii: {{flip: 0.5, color: 0.5}}
model:
  backbone: resnet10
  width: 16
  crop_width: 64
  crop_height: 64
  depth: 8
  ppm_bins: [1, 2]
  ppm_channels: 64
  decoder_channels: 64
  decoder_layers: 2
batch: {{micro: 32, global: 32}}
optimizer: {{lr: 2e-3, milestones: [{milestone}], gamma: 0.2, warmup_steps: 50}}
engine: {{ranks: 1, threads: {threads}, precision: bf16}}
tracking: {{enabled: false}}
"""
HEADS = {
    "integral": {},
    "probabilistic": {"model.head": "probabilistic"},
    "single draws": {"model.head": "probabilistic", "loss.draws_averaged": "1", "loss.entropy": "0.1"},
    "heat map L2": {"loss.l1": "0", "loss.heatmap": "300", "loss.sigma": "1"},
    "L1 + heat map L2": {"loss.heatmap": "100", "loss.sigma": "1"},
    "regression": {"model.head": "regression"},
}
"""What each run sets besides the common configuration; weights and sigma of the heat map L2 are not tuned."""


def pose(log: Path, *words: str) -> None:
    """Run a subcommand; what it says goes to `log`."""
    with log.open("w") as file:
        command = [sys.executable, "-m", "pose", *words]
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"`pose {' '.join(words)}` ended with {done.returncode}; see {log}")


def build(work: Path) -> None:
    """The studio's set and its shards, unless they are there."""
    if (work / "shards" / "built").exists():
        return
    studio = ["--frames", "10", "--frame_px", "400", "--mpii_pictures", "400", "--voc_pictures", "0"]
    pose(work / "studio.log", "studio", str(work / "raw"), *studio)
    for source in ("h36m", "mpii"):
        folders = [str(work / "raw" / source), str(work / "shards" / source)]
        words = ["--stored_px", "80", "--every", "1", "--every_test", "0"]
        pose(work / f"shards-{source}.log", "shards", "build", *folders, *words)
    (work / "shards" / "built").touch()


def train(work: Path, head: str, seed: int) -> dict[str, object]:
    """Train and score one head with one seed, or read what an earlier call left; a JSON row."""
    name = f"{head.replace(' ', '_').replace('+', 'and')}-{seed}"
    score = work / "runs" / name / "score.json"
    if not score.is_file():
        began = time.monotonic()
        words = [word for key, value in HEADS[head].items() for word in (f"--{key}", value)]
        config = ["--config", str(work / "heads.yaml"), "--name", name, "--seed", str(seed)]
        pose(work / f"{name}.log", "train", *config, *words)
        (work / f"{name}.seconds").write_text(f"{time.monotonic() - began:.0f}")
        pose(work / f"{name}-score.log", "eval", str(score.parent), "--threads", "1")
    found = json.loads(score.read_text())
    return {
        "bench": "heads",
        "head": head,
        "seed": seed,
        "model": found["protocol"]["model"],
        "test_mpjpe_mm": round(found["mpjpe_mm"], 1),
        "test_pa_mpjpe_mm": round(found["pa_mpjpe_rigid_mm"], 1),
        "mean_pose_mm": round(found["mean_pose_mpjpe_mm"], 1),
        "train_s": int((work / f"{name}.seconds").read_text()),
    }


def report(rows: list[dict[str, object]]) -> int:
    """Print a table and the verdict; 1 where it is missed."""
    table = Table("head", "seeds", "test MPJPE, mm", "sd", "over integral")
    means: dict[str, float] = {}
    for head in HEADS:
        errors = [float(str(row["test_mpjpe_mm"])) for row in rows if row["head"] == head]
        if not errors:
            continue
        means[head] = statistics.mean(errors)
        spread = f"{statistics.stdev(errors):.1f}" if len(errors) > 1 else ""
        over = f"{means[head] / means['integral'] - 1:+.1%}" if "integral" in means else ""
        table.add_row(head, str(len(errors)), f"{means[head]:.1f}", spread, over)
    table.add_row("mean pose", "", str(rows[0]["mean_pose_mm"]), "", "")
    Console(stderr=True).print(table)
    if not {"integral", "probabilistic"} <= means.keys():
        return 0
    ratio = means["probabilistic"] / means["integral"]
    print(json.dumps({"bench": "heads", "ratio": round(ratio, 3), "limit": LIMIT, "met": ratio <= LIMIT}))
    return int(ratio > LIMIT)


def main() -> int:
    """Print JSON lines, a table and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, default=Path("data/heads"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--heads", nargs="+", choices=list(HEADS), default=list(HEADS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=120, help="start no run after so many minutes")
    arguments = parser.parse_args()
    print(json.dumps({"about": about()}), flush=True)
    began, work = time.monotonic(), arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    milestone = round(0.75 * arguments.epochs, 2)
    config = CONFIG.format(work=work, epochs=arguments.epochs, milestone=milestone, threads=arguments.threads)
    (work / "heads.yaml").write_text(config)
    build(work)
    rows: list[dict[str, object]] = []
    for seed in range(arguments.seeds):
        for head in arguments.heads:
            if rows and time.monotonic() - began > 60 * arguments.minutes:
                print(f"{arguments.minutes:g} minutes are over; run it again to go on", file=sys.stderr)
                return report(rows)
            rows.append(train(work, head, seed))
            print(json.dumps(rows[-1]), flush=True)
    return report(rows)


if __name__ == "__main__":
    sys.exit(main())
