"""`make soak`: one training in the lab, disturbed by many random faults, must end like one that nothing happens to.

    python tests/slurm/soak.py [--faults 30] [--seed 0] [--out runs/soak]

Prints a table of what each fault cost and a verdict; exit code 1 when anything was lost, done otherwise, or done again
without need. Everything stays in the folder that the last line names: job logs, journals, Slurm's own logs, and the
summary as `reliability.md`. Needs what the lab needs: root, and tests/setup.sh. About 40 s for each fault.
"""

import math
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from safetensors.numpy import load_file

import drill
import lab as slurm_lab
from cluster.config import parse
from cluster.snapshot import take_snapshot
from cluster.tracking.provenance import code_version, git_commit
from drill import EVERY, Training
from faults import FAULTS, answers, restarts, running
from lab import Lab, LabError, wait_until
from poselib.errors import InputError
from poselib.settings import check_at_least
from shards.build import build
from shards.settings import BuildSettings, StudioSettings
from shards.studio.make import make_studio
from soak_report import Summary, page, table
from soak_verdict import Event, costs, losses, pace, same_tensor, violations

_STEPS_PER_FAULT: Final = 24
_STEP_S: Final = 0.6
"""Steps as long as this, so that Slurm's slow ways fit into few of them: the batch is chosen for it."""
_WORDS: Final = ("--engine.timeout_s=40", "--optimizer.milestones=[]")
_SHORT_BATCH: Final = 8
_SHORT_EPOCHS: Final = 8
"""Of drill's own settings."""
_PATIENCE_S: Final = 300.0


@dataclass(frozen=True)
class SoakSettings:
    """One training in the lab under many faults.

    Attributes:
        faults: how many; each kind comes once before any comes twice.
        seed: of their order and their places.
        out: folder for everything that is found out.
    """

    faults: int = 30
    seed: int = 0
    out: Path = Path("runs/soak")

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 1, "faults")
        check_at_least(self, 0, "seed")


def main(argv: Sequence[str]) -> int:
    """Soak; 0 when all is well, 1 when it is not, 2 for wrong words."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        settings = parse(SoakSettings, argv, "soak.py")
        if reason := slurm_lab.missing():
            raise InputError(reason)
    except InputError as error:
        print(f"soak.py: {error}", file=sys.stderr)
        return 2
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    folder = (settings.out / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-seed{settings.seed}").absolute()
    folder.mkdir(parents=True)
    start = time.monotonic()
    soak = Soak(settings, folder, console)
    soak.run()
    summary = soak.summary(began, (time.monotonic() - start) / 60)
    (folder / "reliability.md").write_text(page(summary))
    console.print(table(summary.found))
    for line in summary.wrong:
        console.print(f"violated: {line}", markup=False)
    console.print(f"{summary.verdict} Next: {folder / 'reliability.md'}", markup=False)
    return 1 if summary.wrong else 0


class Soak:
    """A training, its faults, and the same training undisturbed.

    Args:
        settings: how many faults.
        folder: for everything.
        console: for the user.
    """

    def __init__(self, settings: SoakSettings, folder: Path, console: Console) -> None:
        self.settings, self.folder, self.console = settings, folder, console
        self.draw = random.Random(settings.seed)
        self.events: list[Event] = []
        self.broken: list[str] = []
        self.slurm, self.batch = "", 0
        self.reference: Training
        self.training: Training

    def run(self) -> None:
        """Train undisturbed, train disturbed; whatever ends it early is kept for the verdict."""
        shard_sets = _make_shards(self.folder)
        os.environ |= take_snapshot(self.folder).environment()  # edits meanwhile do not reach it
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
        ) as bar:
            task = bar.add_task("a lab boots", total=None)
            with Lab(nodes=4) as lab:
                self.slurm = lab.run(["sinfo", "--version"]).stdout.split()[-1]
                try:
                    bar.update(task, description="how fast this machine is")
                    words = self._words(lab, shard_sets)
                    bar.update(task, description="undisturbed")
                    self.reference = drill.start(lab, self.folder / "undisturbed", shard_sets, *words)
                    self.reference.wait_end(1800)
                    self.training = drill.start(lab, self.folder / "disturbed", shard_sets, *words)
                    bar.update(task, total=self.settings.faults)
                    for kind in self._kinds():
                        bar.update(task, description=kind)
                        self._befall(kind)
                        bar.advance(task)
                    bar.update(task, description="to the end")
                    self.training.wait_end(1800)
                except (LabError, OSError, subprocess.SubprocessError, KeyboardInterrupt) as error:
                    self.broken.append(f"ended early by {type(error).__name__}: {error}")
                finally:
                    with suppress(OSError):
                        shutil.copytree(lab.root / "log", self.folder / "slurm")

    def summary(self, when: str, minutes: float) -> Summary:
        """What it all comes to."""
        records, expected = self.training.records(), self.reference.records()
        found = costs(records, self.events)
        wrong = self.broken + violations(records, expected, found, self.settings.faults, EVERY)
        wrong += self._weights()
        steps = losses(records)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout
        return Summary(
            found,
            wrong,
            shlex.join(
                ["python", "tests/slurm/soak.py", f"--faults={self.settings.faults}", f"--seed={self.settings.seed}"]
            ),
            when,
            minutes,
            losses(expected)[-1][0],
            self.batch,
            EVERY,
            pace(expected),
            len(self.training.restored()) + 1,
            len(steps) - len(dict(steps)),
            f"{code_version()}, {git_commit()[:10]}{' and changes' if dirty else ''}",
            self.slurm,
        )

    def _words(self, lab: Lab, shard_sets: dict[str, Path]) -> list[str]:
        """The settings of the training, by the pace of a short one."""
        short = drill.start(lab, self.folder / "pace", shard_sets)
        short.wait_end(600)
        a_sample = pace(short.records()) / _SHORT_BATCH
        self.batch = _SHORT_BATCH * max(1, round(_STEP_S / a_sample / _SHORT_BATCH))
        an_epoch = max(short.steps()) * _SHORT_BATCH / _SHORT_EPOCHS
        epochs = math.ceil(_STEPS_PER_FAULT * (self.settings.faults + 1) * self.batch / an_epoch)
        return [*_WORDS, f"--batch.global={self.batch}", f"--epochs={epochs}", f"--validate_every={epochs}"]

    def _kinds(self) -> list[str]:
        kinds: list[str] = []
        while len(kinds) < self.settings.faults:
            kinds += self.draw.sample(sorted(FAULTS), len(FAULTS))
        return kinds[: self.settings.faults]

    def _befall(self, kind: str) -> None:
        """Let the run get on for a while, do something to it, and see it go on."""
        training, fault, number = self.training, FAULTS[kind], len(self.events)
        since = max(training.steps(), default=0)
        left = self._end() - since
        ahead = self.draw.uniform(0.3, 1.1) * left / (self.settings.faults - number + 1)
        # Mostly after a new checkpoint; sometimes, never twice in a row, a start is over before it has made one.
        early = number % 4 == 3
        training.wait_step(since + max(1 if early else EVERY + 2, round(ahead)) - 1, _PATIENCE_S)
        records = training.records()
        step = max(training.steps())
        self.events.append(Event(kind, kind, len(records), step, time.time(), fault.saves, fault.restarts))
        before = restarts(training)
        what = fault.act(training, self.draw)
        self.events[-1] = Event(kind, what, len(records), step, self.events[-1].time, fault.saves, fault.restarts)
        self._settle(before + fault.restarts)
        again = f"goes on after {training.restored()[-1]}" if restarts(training) > before else "goes on"
        self.console.print(f"{number + 1:3} {time.strftime('%H:%M:%S')}  step {step:4}  {what}; {again}", markup=False)

    def _settle(self, least: int) -> None:
        """Wait until all nodes are back and the run makes steps again."""
        training, lab = self.training, self.training.lab
        answers(lab)

        def up() -> bool:
            shown = lab.run(
                ["sinfo", "-h", "-p", "batch", "-t", "idle,alloc,mix,comp", "-o", "%D %t"], check=False
            ).stdout
            words = [line.split() for line in shown.splitlines()]
            return sum(int(count) for count, state in words if not state.endswith("*")) == len(lab.nodes)

        wait_until(up, _PATIENCE_S, lambda: lab.run(["sinfo", "-N", "-l"]).stdout, pause=0.5)
        wait_until(lambda: restarts(training) >= least and running(training), _PATIENCE_S, training.output, pause=0.3)
        mark = len(training.records())

        def goes_on() -> bool:
            if lab.job(training.job)["JobState"] in slurm_lab.ENDED:
                raise LabError(f"the job ended\n{training.output()[-2000:]}")
            return any("train/loss" in line.get("values", {}) for line in training.records()[mark:])

        wait_until(goes_on, _PATIENCE_S, lambda: f"no step comes\n{training.output()[-2000:]}", pause=0.1)

    def _end(self) -> int:
        return max(self.reference.steps())

    def _weights(self) -> list[str]:
        """What differs between the last weights and running statistics of the two runs."""
        try:
            mine, true = (load_file(one.run / "last.safetensors") for one in (self.training, self.reference))
        except OSError as error:
            return [f"no last weights: {error}"]
        other = [name for name in true if name not in mine or not same_tensor(name, mine[name], true[name])]
        return [f"{len(other)} of {len(true)} tensors differ at the end: {other[0]}"] if other else []


def _make_shards(folder: Path) -> dict[str, Path]:
    """Shard sets as the tests use them."""
    raw, sets = folder / "studio", {source: folder / "shards" / source for source in ("h36m", "mpii")}
    make_studio(
        StudioSettings(
            out=raw,
            frames=4,
            frame_px=256,
            subjects=("S1", "S9"),
            actions=("Directions", "Sitting"),
            mpii_pictures=12,
            voc_pictures=4,
            workers=1,
        )
    )
    for source, out in sets.items():
        build(BuildSettings(raw=raw / source, out=out, stored_px=96, every=1, every_test=2, workers=1))
    return sets


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
