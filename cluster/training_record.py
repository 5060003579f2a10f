"""What a training leaves to read: its journal, which goes to MLflow, and the lines on the screen; all of rank 0."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from cluster.config import flatten
from cluster.data import RunData
from cluster.fence import Fence
from cluster.loop import Step
from cluster.progress import TrainingProgress
from cluster.run_folder import RUN_YAML
from cluster.schedule import Schedule
from cluster.settings import Run
from cluster.tracking.description import describe_training
from cluster.tracking.handle import DELIVERY_S, UPLOAD_BYTES_PER_S, Handle, start_delivery
from cluster.tracking.journal import Journal, NullJournal, Status
from cluster.tracking.provenance import provenance_tags
from cluster.tracking.system_metrics import SystemMetrics
from cluster.weights import BEST, Start
from cluster.world import World

LOGGED: Final = ("val/mpjpe_mm", "train/loss", "train/lr", "train/epoch", "train/images_per_s")
"""The numbers that the journal of every training holds; the first where it has validation subjects."""
_CUT_SHORT_S: Final = 15.0
"""How long a training that did not finish waits for its delivery: less than Slurm's usual KillWait of 30 s."""


class TrainingRecord:
    """The journal, its delivery and the progress of one start of a run; the other ranks have a silent one.

    Args:
        run: with the global batch fixed.
        world: this process' place.
        fence: this start's right to write.
        schedule: of the run.
        start: steps done before; what the journal holds of later ones is void.
    """

    def __init__(self, run: Run, world: World, fence: Fence, schedule: Schedule, start: int) -> None:
        self.run, self.world, self.fence, self.schedule, self.start = run, world, fence, schedule, start
        self.tracking = run.tracking if world.is_main else replace(run.tracking, enabled=False)
        self.journal = Journal(run.folder) if world.is_main else NullJournal()
        self.journal.rewind(start)
        self.progress = TrainingProgress(schedule.steps, start, run.batch.global_, world.is_main)
        self.say = self.progress.say
        self._system = SystemMetrics() if self.tracking.enabled else None
        self._replaced = 0
        self._delivery: Handle | None = None

    def announce(self, data: RunData, origin: Start, checkpoints: Path, device: str) -> None:
        """The first line, and the run's settings for the tracker."""
        run = self.run
        settings = flatten(run)
        self.journal.params(settings)
        synthetic = data.train[0].shards.manifest.synthetic
        self.journal.tags(provenance_tags(run.folder, describe_training(settings, synthetic)))
        self.journal.tags({"posecluster.checkpoints": str(checkpoints.resolve())})
        self.journal.tags(origin.tags)
        self.journal.artifact(RUN_YAML)
        for notice in (*run.model.notices, *origin.lines):
            self.say(notice)
        sizes = " + ".join(f"{len(source.rows)} {source.shards.manifest.source}" for source in data.train)
        where = f"resuming after step {self.start} of" if self.start else "training for"
        ranks = f"{self.world.size} rank{'s' if self.world.size > 1 else ''}"
        self.say(
            f"{run.folder}: {where} {self.schedule.steps} steps of {run.batch.global_} on {sizes} samples,"
            f" {ranks} on {device}"
        )

    def open(self) -> None:
        """Begin to deliver."""
        self.journal.status("running")
        self._delivery = start_delivery(self.run.folder, self.tracking)

    def logs(self, number: int) -> bool:
        """Whether a step is logged: every so many, and those with a validation, as the last one."""
        return number % self.run.log_every == 0 or self.schedule.validates_after(number)

    def stepped(self, step: Step, grad_norm: Callable[[], float | None]) -> None:
        """Show a step, and log it where its turn has come; the norm is asked for only then.

        Raises:
            NeverAgain: a newer start of this run is at work.
        """
        number = step.number
        self.progress.advance(number, step.loss)
        self._replaced += step.replaced
        if not self.logs(number):
            return
        if self.world.is_main:
            self.fence.check()
        values = {"train/loss": step.loss, "train/lr": step.lr, "train/epoch": self.schedule.epoch(number)}
        values |= {"train/grad_norm": norm} if (norm := grad_norm()) is not None else {}
        values["train/images_per_s"] = self.progress.images_per_s(number)
        values |= {"data/replaced": float(self._replaced)} if self._replaced else {}
        values |= self._system.due() if self._system else {}
        self.journal.metrics(number, values)

    def validated(self, step: int, score_mm: float) -> None:
        """Log and show a validation."""
        self.journal.metrics(step, {"val/mpjpe_mm": score_mm})
        self.say(f"epoch {self.schedule.epoch(step):.1f}, step {step}: validation MPJPE {score_mm:.1f} mm")

    def close(self, status: Status, best_step: int) -> None:
        """The run's status is known: have the rest delivered, and the weights of one that has finished.

        Raises:
            OSError: the journal could not be written.
            TryAgain: whether a newer start is at work cannot be read.
        """
        late = ""
        if self.fence.stands:
            if self._model_bytes(status):
                self.journal.model(BEST, best_step or self.schedule.steps)
            self.journal.status(status)
            late = self._delivery.finish(self.patience_s(status)) if self._delivery else ""
        elif self._delivery:
            self._delivery.abandon()
        self.journal.close()
        if late:
            self.say(late)

    def patience_s(self, status: Status) -> float:
        """How long `close` waits for MLflow; the same on every rank.

        A job that was asked to stop has little time left, and its next start delivers the rest.
        """
        return DELIVERY_S + self._model_bytes(status) / UPLOAD_BYTES_PER_S if status == "finished" else _CUT_SHORT_S

    def _model_bytes(self, status: Status) -> int:
        """Size of the weights that MLflow shall be able to serve; 0 where there are none."""
        weights, tracking = self.run.folder / BEST, self.run.tracking
        wanted = status == "finished" and tracking.enabled and tracking.model and weights.is_file()
        return weights.stat().st_size if wanted else 0

    def last_line(self, finished: bool, reason: str, best_mm: float, best_step: int) -> None:
        """What was made, and what to do next."""
        folder = self.run.folder
        if not finished:
            self.say(f"stopped by {reason or 'another rank'}; run the same command again to go on")
        elif best_step:
            best = f"best validation MPJPE {best_mm:.1f} mm at step {best_step}"
            self.say(f"trained: {folder}, {best}; next: pose eval {folder}")
        else:
            self.say(f"trained: {folder}; next: pose eval {folder}")
