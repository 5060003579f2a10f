"""The composition root of a training: builds everything, runs the loop."""

import math
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from cluster.agreement import check_alike, from_main, on_every_rank
from cluster.data import RunData, load_bank, mean_pose_mm, open_data, shard_window
from cluster.endings import LostOthers, TryAgain
from cluster.engine.batchnorm import combine_statistics
from cluster.engine.checkpoint import Checkpoints
from cluster.engine.engine import check_precision, choose_device, join_world, leave_world, shared_store
from cluster.engine.levers import build_engine, check_levers
from cluster.epoch_pictures import write_epoch_picture
from cluster.evaluate import Predictions, evaluation_batches, predict
from cluster.fence import Fence, fruitless_starts, newest_step, raise_fence
from cluster.loop import Step, train_loop
from cluster.preemption import StopFlag
from cluster.preflight import check, global_batch
from cluster.run_folder import claim, held
from cluster.schedule import Schedule
from cluster.settings import Run
from cluster.show import sheet_of_training
from cluster.snapshot import record_start
from cluster.tracking.journal import Status
from cluster.training_record import TrainingRecord
from cluster.watch import Watch
from cluster.weights import BEST, LAST, SavedModel, Start, save_model, share_from_main, start
from cluster.world import World, cores_per_rank, current_job
from poselib.errors import InputError
from poselib.losses import compute_loss
from poselib.metrics import mpjpe_mm
from poselib.model.network import PoseNetwork
from shards.loader import Batch, load_batches
from shards.order import share

_LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "NCCL")


def train_rank(run: Run, world: World, stop: StopFlag, note: Callable[[str, bool], None]) -> None:
    """Be one rank of a training: everything from the folder to the last line.

    Args:
        run: as the user gave it.
        world: this process' place.
        stop: raised when the training shall stop at the next step.
        note: told the last words of a rank that hangs, and whether others are to blame.

    Raises:
        LostOthers: other ranks are gone.
        TryAgain: a checkpoint could not be written.
        NeverAgain: a newer start of this run is at work.
        InputError: what was asked for cannot be done.
    """
    device = choose_device(run.engine.device, world.local_rank)
    try:
        join_world(world, run.engine, device)
        with ExitStack() as stack:
            check_alike(world)
            run, number = from_main(lambda: _claim(run, world, device, stack), world)
            stop.listen()
            Training(run, world, device, Fence(run.folder, number), note).run_to_end(stop)
    except RuntimeError as error:
        if "EADDRINUSE" in str(error):
            where = f"port {world.port} on {socket.gethostname()}"
            raise TryAgain(f"{where} is taken; a new start takes another") from error
        # Gloo and NCCL report a peer that is gone in words; whoever went has said why.
        if world.size > 1 and any(words in str(error) for words in _LOST_PEER):
            raise LostOthers(f"rank {world.rank} lost the other ranks: {str(error).splitlines()[0][:200]}") from error
        raise
    finally:
        leave_world()


class Training:
    """One rank's parts of a run, wired together.

    Args:
        run: with the global batch fixed.
        world: this process' place.
        device: to compute on.
        fence: this start's right to write.
        note: see `train_rank`.
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
        self.start, self.best_mm, self.best_step = self._resume(newest)
        self.record = TrainingRecord(run, world, fence, self.schedule, self.start)
        self.mean_pose = mean_pose_mm(self.data.train[0], run.loader.damaged) if world.is_main else np.zeros((17, 3))

    def run_to_end(self, stop: StopFlag) -> None:
        """Train, say how it ended, and bring everything to MLflow."""
        record, run = self.record, self.run
        record.announce(self.data, self.origin, self.checkpoints.folder, self.device.type)
        if self.world.is_main and not self.start:
            record.journal.artifact(sheet_of_training(run, self.data, self.bank))
        record.open()
        status: Status = "failed"
        try:
            with record.progress, self.watch:
                finished = train_loop(
                    self.engine,
                    self._batches(),
                    self._loss,
                    self.schedule,
                    stop,
                    self.start,
                    self._after_step,
                    self.watch,
                )
            status = "finished" if finished else "stopped"
        finally:
            self.checkpoints.close()
            record.close(status, self.best_step)
        record.last_line(finished, stop.reason, self.best_mm, self.best_step)

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
        """Log, validate and save what is due after a step; the same on every rank."""
        run, number = self.run, step.number
        self.record.stepped(step, self.engine.grad_norm)
        validates = self.schedule.validates_after(number)
        saves = run.checkpoint.every_steps and number % run.checkpoint.every_steps == 0
        if not (validates or saves or step.last):
            return
        began = time.monotonic()
        self.watch.at("checkpoint", number)
        combine_statistics(self.network, self.world.size, number * (run.batch.global_ // run.batch.micro))
        if validates and self.data.val is not None:
            self._validate(number)
        self._save(number, last=step.last)
        if validates or step.last:
            self._write(LAST, number, math.nan)
            if self.data.val is None:
                self._write(BEST, number, math.nan)
        self.record.progress.pause(time.monotonic() - began)

    def _validate(self, step: int) -> None:
        """Score the validation subjects over all ranks; note the best."""
        source, world, run = self.data.val, self.world, self.run
        assert source is not None
        batches = evaluation_batches(
            run, source, run.batch.micro, self.device, cores_per_rank(world), world.rank, world.size
        )
        mine = predict(self.network, self.watch.each(batches, "validation", step), source, run, self.device)
        parts: list[Predictions] = [mine] * world.size
        if world.size > 1:
            dist.all_gather_object(parts, mine)
        score = mpjpe_mm(
            np.concatenate([part.predicted_mm for part in parts]), np.concatenate([part.true_mm for part in parts])
        )
        self.record.validated(step, score)
        if world.is_main and run.tracking.enabled and run.tracking.pictures:
            place = write_epoch_picture(run, self.network, source, step, self.device)
            self.record.journal.image(place, "val/samples", step)
        if score < self.best_mm:
            self.best_mm, self.best_step = score, step
            self._write(BEST, step, score)

    def _save(self, step: int, last: bool) -> None:
        """The checkpoint to resume from; the last one of this start is waited for."""
        self.watch.at("checkpoint", step)
        extra = {
            "best_mm": self.best_mm,
            "best_step": self.best_step,
            "shard_sets": self.data.shard_sets,
        }
        wait = last or not self.run.checkpoint.asynchronous
        self.checkpoints.save(self.engine, step, extra, self.best_step, wait)

    def _write(self, name: str, step: int, score_mm: float) -> None:
        if self.world.is_main:
            with self.fence.held():
                save_model(self.run.folder / name, SavedModel(self.network, step, score_mm, self.mean_pose))

    def _resume(self, path: Path | None) -> tuple[int, float, int]:
        """Restore a checkpoint: steps done, best validation score and its step."""
        if path is None:
            return 0, math.inf, 0
        step, extra = self.checkpoints.load(self.engine, path)
        if extra["shard_sets"] != self.data.shard_sets:
            raise InputError(f"{path} was trained on other shards than stand there now; build them as they were")
        return step, extra["best_mm"], extra["best_step"]


def _claim(run: Run, world: World, device: torch.device, stack: ExitStack) -> tuple[Run, int]:
    """Check what the run needs, hold its folder until `stack` closes, claim it, and become its newest start."""
    check_precision(run.engine.precision, device)
    check_levers(run.engine, device)
    check(run, world.size)
    job = current_job()
    stack.enter_context(held(run.folder, job))
    run = claim(run, global_batch(run, world.size), shard_window(run))
    fruitless = fruitless_starts(run.folder, job) - 1 if job.restart else 0
    if fruitless >= run.restart.limit:
        raise InputError(
            f"{run.folder}: {fruitless} starts in a row have made no checkpoint after step {newest_step(run.folder)};"
            " mend what they name and submit again, or set restart.limit"
        )
    number = raise_fence(run.folder, job, socket.gethostname()).number
    record_start(run.folder)
    return run, number
