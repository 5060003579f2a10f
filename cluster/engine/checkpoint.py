"""Checkpoints: written beside, hashed, renamed; the newest complete one is restored; nothing in them is executed.

checkpoints/step-00000120/state.safetensors  tensors that know of no ranks (`state.py`), and the run's plain values
checkpoints/step-00000120/complete.json      step, size and SHA-256 of that file; written last

Ranks give their parts to rank 0 at the step's end; it alone writes, so that a checkpoint is there for all ranks or for
none. Which is the latest is told by the names: a rename is what makes a checkpoint, and there is no pointer to move.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cluster.agreement import refuse
from cluster.checkpoint_names import PARTIAL, by_step, checkpoint_name, step_of
from cluster.endings import NeverAgain, TryAgain, in_words
from cluster.engine.engine import Engine
from cluster.fence import Fence
from poselib.errors import InputError
from shards.atomic import sync_folder

_STATE: Final = "state.safetensors"
_COMPLETE: Final = "complete.json"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: `runs/<name>/checkpoints`.
        rank: of this process; every rank takes part in every call but `newest`.
        keep: how many of the newest stay.
        fence: this start's right to write.
        notice: told of each damaged checkpoint that is passed over.
    """

    def __init__(self, folder: Path, rank: int, keep: int, fence: Fence, notice: Callable[[str], None] = print) -> None:
        self.folder = folder
        self.rank = rank
        self.keep = keep
        self.fence = fence
        self.notice = notice
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._in_flight: Path | None = None
        self._written: Future[None] | None = None

    def save(self, engine: Engine, step: int, extra: dict[str, Any], best: int = 0, wait: bool = True) -> None:
        """Write the state after `step` optimiser steps.

        Args:
            engine: between two steps.
            step: optimiser steps done.
            extra: plain values to have back with it.
            best: the step whose checkpoint stays however old it grows.
            wait: come back when it is written; else a thread writes a copy while the training goes on, and the next
                save, or `finish`, tells what became of it. There is never more than one.

        Raises:
            TryAgain: it, or the one in flight, could not be written; older ones are untouched. All ranks end.
            NeverAgain: a newer start of this run is at work; nothing was touched. All ranks end.
            SaidByMain: one of these, elsewhere than on rank 0.
        """
        self.finish()
        state = engine.gather(keep=self.rank == 0)
        self._in_flight = self.folder / checkpoint_name(step)
        if self.rank == 0:
            self._written = self._writer.submit(self._write, state, self._in_flight, extra, best)
        if wait:
            self.finish()

    def finish(self) -> None:
        """Wait for a checkpoint in flight, if there is one; errors as in `save`."""
        final, written = self._in_flight, self._written
        self._in_flight = self._written = None
        if final is not None:
            self._together(lambda: written.result() if written else None, final)

    def close(self) -> None:
        """Wait without telling anybody what became of it: for a rank that ends because of something else."""
        self._writer.shutdown()

    def newest(self) -> Path | None:
        """The newest checkpoint whose files are whole; damaged ones are named and passed over."""
        found = by_step(self.folder).values()
        for path in reversed(found):
            fault = _fault(path)
            if not fault:
                return path
            self.notice(f"{path}: {fault}; passed over")
        if found:
            raise InputError(f"{self.folder}: no checkpoint is whole; remove the folder to start anew")
        return None

    def load(self, engine: Engine, path: Path) -> tuple[int, dict[str, Any]]:
        """Restore weights, buffers and optimiser; returns the step and the `extra` of `save`.

        Raises:
            InputError: of another architecture, or no file of tensors alone.
            TryAgain: the file system does not give it.
        """
        file = path / _STATE
        try:
            with safe_open(file, framework="pt") as opened:
                state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                extra = json.loads(opened.metadata()["extra"])
        except OSError as error:
            raise TryAgain(f"{file} could not be read: {in_words(error)}") from error
        except (SafetensorError, TypeError, KeyError, ValueError) as error:
            raise InputError(f"{file} is no file of tensors alone and is refused: {error}") from error
        reason = engine.misfit(state)
        if reason:
            raise InputError(f"{path} is of another architecture: {reason}")
        engine.restore(state)
        return step_of(path) or 0, extra

    def _write(self, state: dict[str, torch.Tensor], final: Path, extra: dict[str, Any], best: int) -> None:
        """Make a state durable under its final name, then drop what is too old; in a thread of rank 0."""
        # An older start, which a network cut keeps alive, may be writing the same step.
        partial = final.with_suffix(f".{self.fence.number}.partial")
        self._clear(partial)
        partial.mkdir()
        try:
            save_file(state, partial / _STATE, {"extra": json.dumps(extra)})
        except SafetensorError as error:  # that is how it reports a full disk
            raise OSError(str(error)) from error
        files = {}
        with (partial / _STATE).open("rb") as stream:
            os.fsync(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            files[_STATE] = {"bytes": stream.tell(), "sha256": digest}
        with (partial / _COMPLETE).open("w") as stream:
            json.dump({"step": step_of(final), "files": files}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(partial)
        with self.fence.held():
            self._commit(partial, final, best)

    def _clear(self, partial: Path) -> None:
        self.fence.check()
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob(PARTIAL):
            if path == partial or _start_of(path) < self.fence.number:
                shutil.rmtree(path, ignore_errors=True)

    def _commit(self, partial: Path, final: Path, best: int) -> None:
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        sync_folder(self.folder)
        step = step_of(final) or 0
        found = by_step(self.folder)
        # Later steps are damaged ones that a resumed run went back behind: they must not count as the newest.
        void = [other for other in found if other > step]
        old = [other for other in found if other <= step][: -self.keep]
        for other in void + [other for other in old if other != best]:
            shutil.rmtree(found[other], ignore_errors=True)

    def _together(self, act: Callable[[], Any], final: Path) -> None:
        """Let every rank act, then end all if any failed: nobody waits for one that is gone."""
        problem: TryAgain | NeverAgain | None = None
        try:
            act()
        except OSError as error:
            problem = TryAgain(f"{final} could not be written: {in_words(error)}; the previous one is untouched")
        except (TryAgain, NeverAgain) as error:
            problem = error
        problems = [problem]
        if dist.is_initialized() and dist.get_world_size() > 1:
            problems = [None] * dist.get_world_size()
            dist.all_gather_object(problems, problem)
        for found in filter(None, problems):
            refuse(found)


def _start_of(partial: Path) -> int:
    """The number of the start that was writing `step-00000120.3.partial`."""
    number = partial.name.split(".")[1]
    return int(number) if number.isdecimal() else 0


def _fault(path: Path) -> str:
    """What is wrong with a checkpoint's files, or nothing."""
    try:
        files = json.loads((path / _COMPLETE).read_text())["files"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return f"{_COMPLETE} is missing or damaged"
    for name, record in files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != record["bytes"]:
            return f"{name} is missing or of the wrong size"
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != record["sha256"]:
                return f"{name} is damaged"
    return ""
