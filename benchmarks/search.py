"""A search of 8 trials with ASHA on the studio's data: its time, its share of the epochs, what a trial costs.

    asha       `pose tune`: 8 random configurations, the poor ones ended early
    whole      the same 8 configurations, all to their ends (with `--whole`): was the best one lost?
    overhead   two equal trials one after another, and the same training by `pose train`: the time from the first
               trial's end to the second one's, less the plain training's

The network is small, so that 2 cores suffice; run it on an idle machine. Studio and shards are made first, untimed.

    python benchmarks/search.py [--whole] [--epochs 9] [--work FOLDER]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
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
TRIALS = 8
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
        "runs_dir": str(work / "runs"),
        "epochs": arguments.epochs,
        "data": {"h36m": str(work / "shards"), "every_train": 1, "every_val": 1, "every_test": 1, **subjects},
        "model": model,
        "batch": {"micro": 16},
        "engine": {"ranks": 1, "device": "cpu", "threads": 1},
        "space": space,
        "search": {"searcher": "random", "trials": TRIALS, **search},
    }
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def pose(*words: str) -> float:
    """Run a subcommand; its seconds."""
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


def measure(arguments: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """The rows of the table."""
    make_data(work)
    space = {
        "optimizer.lr": {"from": 1e-5, "to": 1e-2, "log": True},
        "model.depth": [8, 16],
        "augment.flip": [0.0, 0.5],
    }
    asha = settings(arguments, work, "asha", space, scheduler="asha", reduction=3, parallel=2)
    seconds = pose("tune", "--config", str(asha))
    records = read_trials(work / "runs" / "asha")
    best = min(record.scores[METRIC] for record in records if METRIC in record.scores)
    spent = sum(epochs_begun(work / "runs" / "asha", record) for record in records)
    share = spent / (arguments.epochs * TRIALS)
    rows = [
        row("search of 8 trials, minutes", seconds / 60, MINUTES),
        row("share of all epochs", share, SHARE),
    ]
    if arguments.whole:
        whole = settings(arguments, work, "whole", space, scheduler="none", parallel=2)
        pose("tune", "--config", str(whole))
        scores = [record.scores[METRIC] for record in read_trials(work / "runs" / "whole")]
        rows.append(row("best error, beside the best of all to their ends", best / min(scores) - 1, NOISE))
    return [*rows, row("seconds that a trial costs beside its training", overhead_s(arguments, work), OVERHEAD_S)]


def overhead_s(arguments: argparse.Namespace, work: Path) -> float:
    """Seconds per trial beyond those of `pose train`, both with the machine to themselves."""
    equal = settings(arguments, work, "equal", {"seed": [0, 1]}, searcher="grid", parallel=1)
    pose("tune", "--config", str(equal), "--epochs", "2")
    folder = work / "runs" / "equal"
    first, second = read_trials(folder)
    assert first.ended is not None
    assert second.ended is not None
    run = yaml.safe_load((folder / second.name / "train.yaml").read_text()) | {"name": "plain"}
    (work / "plain.yaml").write_text(yaml.safe_dump(run))
    return second.ended - first.ended - pose("train", "--config", str(work / "plain.yaml"))


def row(what: str, value: float, target: float) -> dict[str, Any]:
    """A figure beside its target, which is an upper bound."""
    return {"what": what, "value": round(value, 3), "target": target, "verdict": "met" if value <= target else "missed"}


def main() -> None:
    """Print JSON lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--whole", action="store_true", help="also run all trials to their ends")
    parser.add_argument("--work", type=Path, help="a folder to keep; else a temporary one")
    arguments = parser.parse_args()
    print(json.dumps({"about": about()}), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        rows = measure(arguments, work)
    table = Table("what", "value", "target, at most", "verdict")
    for one in rows:
        print(json.dumps(one | {"load_1min": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}))
        table.add_row(one["what"], f"{one['value']:g}", f"{one['target']:g}", one["verdict"])
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
