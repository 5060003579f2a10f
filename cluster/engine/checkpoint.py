"""Checkpoints: written beside, hashed, renamed; the newest complete one is restored; nothing in them is executed.

checkpoints/step-00000120/state/...      DeepSpeed's files
checkpoints/step-00000120/complete.json  step, sizes and SHA-256 of those files; written last
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch.distributed as dist

from cluster.endings import NeverAgain, TryAgain
from cluster.engine.engine import Engine
from cluster.fence import Fence
from poselib.errors import InputError
from shards.atomic import sync_folder

_STATE: Final = "state"
_COMPLETE: Final = "complete.json"
_NAME: Final = re.compile(r"step-(\d{8})")


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

    def save(self, engine: Engine, step: int, extra: dict[str, Any]) -> None:
        """Write the state after `step` optimiser steps; `extra` holds plain values.

        Raises:
            TryAgain: it could not be written; the previous one is untouched. All ranks raise together.
            NeverAgain: a newer start of this run is at work; nothing was touched. All ranks raise together.
        """
        final = self.folder / f"step-{step:08d}"
        # An older start, which a network cut keeps alive, may be writing the same step.
        partial = final.with_suffix(f".{self.fence.number}.partial")
        self._together(lambda: self._clear(partial) if self.rank == 0 else None, final)
        self._together(lambda: self._write(engine, partial, extra), final)
        self._together(lambda: self._complete(partial, final, step) if self.rank == 0 else None, final)

    def newest(self) -> Path | None:
        """The newest checkpoint whose files are whole; damaged ones are named and passed over."""
        found = sorted((path for path in self.folder.glob("step-*") if _NAME.fullmatch(path.name)), reverse=True)
        for path in found:
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
            InputError: of another architecture, or with content that is more than numbers.
        """
        engine.use_safe_files()
        try:
            _, client = engine.deepspeed.load_checkpoint(str(path), tag=_STATE)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()
            raise InputError(f"{path} is of another architecture: {' '.join(reason[:2])[:300]}") from error
        except Exception as error:
            if type(error).__name__ != "UnpicklingError":
                raise
            raise InputError(f"{path} holds more than numbers and is refused: {str(error).splitlines()[0]}") from error
        return _step(path), client["extra"]

    def _write(self, engine: Engine, partial: Path, extra: dict[str, Any]) -> None:
        files = engine.use_safe_files()
        engine.deepspeed.save_checkpoint(str(partial), tag=_STATE, client_state={"extra": extra}, save_latest=False)
        if files.problem:
            raise OSError(files.problem)

    def _clear(self, partial: Path) -> None:
        self.fence.check()
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("step-*.partial"):
            if path == partial or _start_of(path) < self.fence.number:
                shutil.rmtree(path, ignore_errors=True)

    def _complete(self, partial: Path, final: Path, step: int) -> None:
        """Make the written state durable under its final name, then drop what is too old."""
        files = {}
        for file in sorted(path for path in partial.rglob("*") if path.is_file()):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            files[str(file.relative_to(partial))] = {"bytes": file.stat().st_size, "sha256": digest}
        with (partial / _COMPLETE).open("w") as stream:
            json.dump({"step": step, "files": files}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        with self.fence.held():
            self._commit(partial, final, step)

    def _commit(self, partial: Path, final: Path, step: int) -> None:
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        sync_folder(self.folder)
        found = sorted(path for path in self.folder.glob("step-*") if _NAME.fullmatch(path.name))
        # Later steps are damaged ones that a resumed run went back behind: they must not count as the newest.
        void = [path for path in found if _step(path) > step]
        for path in void + [path for path in found if _step(path) <= step][: -self.keep]:
            shutil.rmtree(path, ignore_errors=True)

    def _together(self, act: Callable[[], Any], final: Path) -> None:
        """Let every rank act, then raise on all if any failed: nobody waits for one that is gone."""
        problem: TryAgain | NeverAgain | None = None
        try:
            act()
        except OSError as error:
            reason = " ".join(str(error).split())[:200]
            problem = TryAgain(f"{final} could not be written: {reason}; the previous one is untouched")
        except NeverAgain as error:
            problem = error
        problems = [problem]
        if dist.is_initialized() and dist.get_world_size() > 1:
            problems = [None] * dist.get_world_size()
            dist.all_gather_object(problems, problem)
        for found in filter(None, problems):
            raise found


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _start_of(partial: Path) -> int:
    """The number of the start that was writing `step-00000120.3.partial`."""
    number = partial.name.split(".")[1]
    return int(number) if number.isdecimal() else 0


def _fault(path: Path) -> str:
    """What is wrong with a checkpoint's files, or nothing."""
    try:
        files = json.loads((path / _COMPLETE).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return f"{_COMPLETE} is missing or damaged"
    for name, record in files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != record["bytes"]:
            return f"{name} is missing or of the wrong size"
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != record["sha256"]:
                return f"{name} is damaged"
    return ""
