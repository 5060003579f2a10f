"""The composition root of a training: builds everything, runs the loop."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from cluster.agreement import from_main, on_every_rank, stay_until_main
from cluster.data import RunData, load_bank, mean_pose_mm, open_data
from cluster.endings import writing
from cluster.engine.batchnorm import combine_statistics
from cluster.engine.checkpoint import Checkpoints
from cluster.engine.engine import shared_store
from cluster.engine.levers import build_engine
from cluster.epoch_pictures import FOLDER, write_epoch_picture
from cluster.evaluate import Predictions, evaluation_batches, predict
from cluster.fence import Fence
from cluster.loop import Step, train_loop
from cluster.preemption import StopFlag
from cluster.schedule import Schedule
from cluster.settings import Run
from cluster.show import sheet_of_training
from cluster.tracking.journal import Status
from cluster.training_record import TrainingRecord
from cluster.watch import Watch
from cluster.weights import BEST, LAST, SavedModel, Start, save_model, share_from_main, start
from cluster.world import World, cores_per_rank
from poselib.errors import InputError
from poselib.losses import compute_loss
from poselib.metrics import mpjpe_mm
from poselib.model.network import PoseNetwork
from shards.loader import Batch, Source, load_batches
from shards.order import share


class Training:
    """One rank's parts of a run, wired together.

    Args:
        run: with the global batch fixed.
        world: this process' place.
        device: to compute on.
        fence: this start's right to write.
        note: told the last words of a rank that hangs, and whether others are to blame.
    """

    def __init__(
        self, run: Run, world: World, device: torch.device, fence: Fence, note: Callable[[str, bool], None]
    ) -> None:
        self.run, self.world, self.device, self.fence = run, world, device, fence
        self.data: RunData = on_every_rank(lambda: open_data(run), world)
        self.bank = load_bank(run, self.data)
        per_step = run.batch.global_ // run.batch.micro
        accumulation = len(share(0, per_step, world.rank, world.size))
        self.schedule = Schedule(
            run.optimizer, self.data.order.epoch_places, run.batch.global_, run.epochs, run.validate_every
        )
        torch.manual_seed(run.seed)
        network = PoseNetwork(run.model)
        self.checkpoints = Checkpoints(run.folder / "checkpoints", world.rank, run.checkpoint.keep, fence)
        newest = from_main(self.checkpoints.newest, world)
        # One that resumes brings its own weights; the files it once started from may be gone.
        self.origin = Start() if newest else from_main(lambda: start(network, run), world)
        if self.origin.tags:
            share_from_main(network.to(device))
        self.engine = build_engine(run, network, world, accumulation, device)
        self.network = network
        # It has to speak before the collectives give up.
        self.watch = Watch(world.rank, world.size, 0.7 * run.engine.timeout_s, shared_store(), note)
        self.start, self.best_mm, self.best_step, self.due = 0, math.inf, 0, False
        if newest is not None:
            on_every_rank(lambda: self._resume(newest), world)
        self.record = on_every_rank(lambda: TrainingRecord(run, world, fence, self.schedule, self.start), world)
        self.mean_pose = mean_pose_mm(self.data.train[0], run.loader.damaged) if world.is_main else np.zeros((17, 3))

    def run_to_end(self, stop: StopFlag) -> None:
        """Train, say how it ended, and bring everything to MLflow."""
        record = self.record
        from_main(self._open_record, self.world)
        try:
            with record.progress, self.watch:
                if self.due and self.data.val is not None:
                    self._validate(self.data.val, self.start)
                finished = train_loop(
                    self.engine,
                    self._batches(),
                    self._loss,
                    self.schedule,
                    stop,
                    self.start,
                    self._after_step,
                    self._due,
                    self.watch,
                )
        except BaseException:
            self.checkpoints.close()
            with suppress(OSError, InputError):  # what ended the training is to be told, not this
                record.close("failed", self.best_step)
            raise
        self.checkpoints.close()
        status: Status = "finished" if finished else "stopped"
        record.close(status, self.best_step)
        stay_until_main(self.world, 2 * record.patience_s(status))
        record.last_line(finished, stop.reason, self.best_mm, self.best_step)

    def _open_record(self) -> None:
        """Say what is trained, and begin to deliver."""
        self.record.announce(self.data, self.origin, self.checkpoints.folder, self.device.type)
        if not self.start:
            self.record.journal.artifact(sheet_of_training(self.run, self.data, self.bank))
        self.record.open()

    def _batches(self) -> Iterator[Batch]:
        """This rank's micro-batches from where the run stands."""
        order, per_step = self.data.order, self.run.batch.global_ // self.run.batch.micro
        draws = (
            order.micro_batch(index)
            for step in range(self.start, self.schedule.steps)
            for index in share(step, per_step, self.world.rank, self.world.size)
        )
        run = self.run
        threads = cores_per_rank(self.world)
        micro, device = run.batch.micro, self.device
        return load_batches(
            self.data.train, draws, micro, run.model, run.crop, run.loader, device, run.seed, threads, self.bank
        )

    def _loss(self, batch: Batch) -> torch.Tensor:
        """The loss of a micro-batch; what is drawn for it depends on the micro-batch alone, in any world."""
        for line in batch.replaced:  # on whichever rank: each line stands in that rank's log
            print(f"rank {self.world.rank}: replaced {line}", file=sys.stderr, flush=True)
        first = (batch.draws.source[0], batch.draws.turn[0], batch.draws.sample[0])
        seed = int(np.random.SeedSequence([self.run.seed, *map(int, first)]).generate_state(1)[0])
        generator = torch.Generator(self.device).manual_seed(seed)
        return compute_loss(
            self.engine.forward, batch.inputs, batch.targets, batch.weights, self.run.model, self.run.loss, generator
        )

    def _after_step(self, step: Step) -> None:
        """Log, validate and save what is due after a step; the same on every rank.

        The checkpoint comes last: whoever goes on from it finds the model files, and makes what went before it anew.
        """
        run, number, val = self.run, step.number, self.data.val
        self.record.stepped(step, self.engine.grad_norm)
        validates = self.schedule.validates_after(number)
        # There may be no time for a validation once the job was asked to stop: the next start begins with it.
        self.due = validates and val is not None and step.last and number < self.schedule.steps
        saves = run.checkpoint.every_steps and number % run.checkpoint.every_steps == 0
        if not (validates or saves or step.last):
            return
        began = time.monotonic()
        self.watch.at("checkpoint", number)
        combine_statistics(self.network, self.world.size, number * (run.batch.global_ // run.batch.micro))
        if validates and val is not None and not self.due:
            self._validate(val, number)
        if validates or step.last:
            self._write(LAST, number, math.nan)
            if val is None:
                self._write(BEST, number, math.nan)
        self._save(number, last=step.last)
        self.record.progress.pause(time.monotonic() - began)

    def _due(self, number: int) -> bool:
        """Whether `_after_step` needs the state as it is after a step; on a CPU nothing is won by waiting."""
        every = self.run.checkpoint.every_steps
        saves = every and number % every == 0
        return self.device.type == "cpu" or bool(saves) or self.record.logs(number)

    def _validate(self, source: Source, step: int) -> None:
        """Score the validation subjects over all ranks; note the best."""
        world, run = self.world, self.run
        batches = evaluation_batches(
            run, source, run.batch.micro, self.device, cores_per_rank(world), world.rank, world.size
        )
        mine = predict(self.network, self.watch.each(batches, "validation", step), source, run)
        parts: list[Predictions] = [mine] * world.size
        if world.size > 1:
            dist.all_gather_object(parts, mine)
        score = mpjpe_mm(
            np.concatenate([part.predicted_mm for part in parts]), np.concatenate([part.true_mm for part in parts])
        )
        from_main(lambda: self._tell(source, step, score), world)
        if score < self.best_mm:
            self.best_mm, self.best_step = score, step
            self._write(BEST, step, score)

    def _tell(self, source: Source, step: int, score: float) -> None:
        """Log a validation and its picture, on rank 0, unless a newer start is at work."""
        run, record = self.run, self.record
        self.fence.check()
        record.validated(step, score)
        if run.tracking.enabled and run.tracking.pictures:
            with writing(run.folder / FOLDER):
                place = write_epoch_picture(run, self.network, source, step, self.device)
            record.journal.image(place, "val/samples", step)

    def _save(self, step: int, last: bool) -> None:
        """The checkpoint to resume from; the last one of this start is waited for."""
        self.watch.at("checkpoint", step)
        extra = {
            "best_mm": self.best_mm,
            "best_step": self.best_step,
            "shard_sets": self.data.shard_sets,
            "validation_due": self.due,
        }
        wait = last or not self.run.checkpoint.asynchronous
        self.checkpoints.save(self.engine, step, extra, self.best_step, wait)

    def _write(self, name: str, step: int, score_mm: float) -> None:
        """Write a model file on rank 0; if that fails all ranks end."""
        path = self.run.folder / name

        def write() -> None:
            with self.fence.held(), writing(path):
                save_model(path, SavedModel(self.network, step, score_mm, self.mean_pose))

        from_main(write, self.world)

    def _resume(self, path: Path) -> None:
        """Restore a checkpoint: steps done, best validation score and its step, and whether a validation is due."""
        self.start, extra = self.checkpoints.load(self.engine, path)
        if extra["shard_sets"] != self.data.shard_sets:
            raise InputError(f"{path} was trained on other shards than stand there now; build them as they were")
        self.best_mm, self.best_step = extra["best_mm"], extra["best_step"]
        self.due = extra.get("validation_due", False)
