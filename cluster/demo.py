"""`pose demo`: the whole way on one machine, on embedded data."""

import os
import sys
import time
from dataclasses import replace

from rich.console import Console

from cluster.children import describe_ending, run_children
from cluster.config import dump
from cluster.settings_commands import DemoSettings
from cluster.tracking.journal import last_status
from poselib.errors import InputError
from shards.build import build
from shards.settings import BuildSettings
from shards.studio.make import make_studio


def demo(settings: DemoSettings) -> None:
    """Studio, shards, training, score card, MLflow: each stage as a user would run it, each resumed when run again."""
    console = Console()
    began = time.monotonic()
    raw, shards = settings.work / "raw", settings.work / "shards"
    data = replace(settings.train.data, h36m=str(shards / "h36m"), mpii=str(shards / "mpii"))
    run = replace(settings.train, data=data)

    def say(text: str) -> None:
        console.print(f"[{time.monotonic() - began:5.0f} s] {text}", highlight=False, soft_wrap=True, markup=False)

    say(f"1/4 synthetic people, in the raw layouts of Human3.6M, MPII and VOC2012: {raw}")
    make_studio(replace(settings.studio, out=raw))
    say(f"2/4 person crops in WebDataset shards: {shards}")
    for source in ("h36m", "mpii"):
        build(BuildSettings(raw=raw / source, out=shards / source, stored_px=settings.stored_px, every=1, every_test=0))
    say(f"3/4 training: {run.folder}")
    settings.work.mkdir(parents=True, exist_ok=True)
    config = settings.work / "train.yaml"
    config.write_text(dump(run))
    _pose("train", "--config", str(config))
    if last_status(run.folder) != "finished":
        raise InputError("the training was stopped; run the same command again to go on")
    say("4/4 held-out subjects")
    _pose("eval", str(run.folder))
    say(f"done: {run.folder / 'score.html'}; next: pose ui --runs_dir {run.runs_dir}")


def _pose(*words: str) -> None:
    """Run a subcommand in a process of its own, as a user would."""
    (code,) = run_children([([sys.executable, "-m", "pose", *words], os.environ)])
    if code:
        raise InputError(f"`pose {' '.join(words)}` ended early ({describe_ending(code)}); what went before is kept")
