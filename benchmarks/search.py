"""A search of 8 trials with ASHA on the studio's data: its time, its share of the epochs, what a trial costs.

    asha       `pose tune`: 8 random configurations, the poor ones ended early
    whole      the same 8 configurations, all to their ends (with `--whole`): was the best one lost?
    overhead   three equal trials one after another, and the same training by `pose train`: the mean time from one
               trial's end to the next one's, less the plain training's

The network is small, so that 2 cores suffice; run it on an idle machine. Studio and shards are made first, untimed.

JSON lines on stdout, each figure as soon as it is known; the last one says whether all targets are met.

    python benchmarks/search.py [--whole] [--epochs 9] [--trials 8] [--seed 0] [--work FOLDER]
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from cluster.bench.about import about
from cluster.tracking.journal import read_metrics
from shards.build import build
from shards.settings import BuildSettings, StudioSettings
from shards.studio.make import make_studio
from tune.records import TrialRecord, read_trials

MINUTES, SHARE, OVERHEAD_S, NOISE = 10.0, 0.60, 10.0, 0.05
"""Targets: of the search, of ASHA's epochs, of a trial; and how much worse a best error counts as noise."""
METRIC = "val/mpjpe_mm"


def make_data(work: Path) -> Path:
    """A small studio as a shard set."""
    raw = work / "raw"
    make_studio(StudioSettings(out=raw, frames=8, frame_px=256, subjects=("S1", "S5", "S8", "S9"), workers=1))
    build(BuildSettings(raw=raw / "h36m", out=work / "shards", stored_px=96, every=1, every_test=0, workers=1))
    return work / "shards"


def settings(arguments: argparse.Namespace, work: Path, name: str, space: dict[str, Any], **search: Any) -> Path:
    """The YAML of a search."""
    model = {"backbone": "resnet10", "width": 8, "crop_width": 64, "crop_height": 64, "depth": 8, "ppm_bins": [1, 2]}
    model |= {"ppm_channels": 16, "decoder_channels": 16, "decoder_layers": 1}
    subjects = {"train_subjects": ["S1", "S5"], "val_subjects": ["S8"], "test_subjects": ["S9"]}
    content = {
        "name": name,
        "runs_dir": str(work / arguments.runs),
        "epochs": arguments.epochs,
        "seed": arguments.seed,
        "data": {"h36m": str(work / "shards"), "every_train": 1, "every_val": 1, "every_test": 1, **subjects},
        "model": model,
        "batch": {"micro": 16},
        "engine": {"ranks": 1, "device": "cpu", "threads": 1},
        "space": space,
        "search": {"searcher": "random", "trials": arguments.trials, **search},
    }
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def pose(*words: str) -> float:
    """Run a subcommand; its seconds."""
    print(f"pose {shlex.join(words)}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pose", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"pose {' '.join(words)}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began


def epochs_begun(folder: Path, record: TrialRecord) -> int:
    """Epochs that a trial's training really validated, those that it was ended in the middle of included."""
    journal = folder / record.name
    return len({entry.step for entry in read_metrics(journal) if METRIC in entry.values}) + (
        record.status == "stopped early"
    )


def measure(arguments: argparse.Namespace, work: Path) -> Iterator[dict[str, Any]]:
    """The rows of the table, one after the other."""
    make_data(work)
    space = {
        "optimizer.lr": {"from": 1e-5, "to": 1e-2, "log": True},
        "model.depth": [8, 16],
        "augment.flip": [0.0, 0.5],
    }
    asha = settings(arguments, work, "asha", space, scheduler="asha", reduction=3, parallel=2)
    seconds = pose("tune", "--config", str(asha))
    yield row(f"search of {arguments.trials} trials, minutes", seconds / 60, MINUTES)
    folder = work / arguments.runs / "asha"
    records = read_trials(folder)
    failed = [f"{record.name}: {record.reason}" for record in records if record.status == "failed"]
    if failed or len(records) < arguments.trials:
        raise SystemExit(f"{len(records)} of {arguments.trials} trials, {len(failed)} of them failed: {failed}")
    spent = sum(epochs_begun(folder, record) for record in records)
    yield row("share of all epochs", spent / (arguments.epochs * arguments.trials), SHARE)
    if arguments.whole:
        whole = settings(arguments, work, "whole", space, scheduler="none", parallel=2)
        pose("tune", "--config", str(whole))
        best, least = (
            min(record.scores[METRIC] for record in read_trials(work / arguments.runs / name) if record.scores)
            for name in ("asha", "whole")
        )
        yield row("best error, beside the best of all to their ends", best / least - 1, NOISE)
    yield row("seconds that a trial costs beside its training", overhead_s(arguments, work), OVERHEAD_S)


def overhead_s(arguments: argparse.Namespace, work: Path) -> float:
    """Seconds per trial beyond those of `pose train`, both with the machine to themselves."""
    equal = settings(arguments, work, "equal", {"seed": [0, 1, 2]}, searcher="grid", parallel=1)
    pose("tune", "--config", str(equal), "--epochs", "2")
    folder = work / arguments.runs / "equal"
    records = read_trials(folder)
    ends = [record.ended for record in records if record.status == "finished" and record.ended is not None]
    if len(ends) != 3:
        raise SystemExit(f"three equal trials, but {len(ends)} of them finished: {folder}")
    run = yaml.safe_load((folder / records[-1].name / "train.yaml").read_text()) | {"name": "plain"}
    (work / "plain.yaml").write_text(yaml.safe_dump(run))
    return (max(ends) - min(ends)) / 2 - pose("train", "--config", str(work / "plain.yaml"))


def row(what: str, value: float, target: float) -> dict[str, Any]:
    """A figure beside its target, which is an upper bound."""
    return {"what": what, "value": round(value, 3), "target": target, "verdict": "met" if value <= target else "missed"}


def main() -> None:
    """Print JSON lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the trainings, and of what is tried in which order")
    parser.add_argument("--whole", action="store_true", help="also run all trials to their ends")
    parser.add_argument("--work", type=Path, help="a folder to keep; else a temporary one")
    arguments = parser.parse_args()
    arguments.runs = time.strftime("runs-%Y%m%d-%H%M%S")  # a folder that is kept may hold searches of these names
    print(json.dumps({"about": about()}), flush=True)
    table = Table("what", "value", "target, at most", "verdict")
    missed = []
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for one in measure(arguments, work):
            load = {"load_1min": round(os.getloadavg()[0], 1), "cores": len(os.sched_getaffinity(0))}
            print(json.dumps(one | load), flush=True)
            table.add_row(one["what"], f"{one['value']:g}", f"{one['target']:g}", one["verdict"])
            missed += [one["what"]] * (one["verdict"] == "missed")
    Console(stderr=True).print(table)
    print(json.dumps({"verdict": "missed" if missed else "met", "missed": missed}))


if __name__ == "__main__":
    main()
