"""`metrics.jsonl`, the truth about what happened in a run.

One JSON object per line, only ever appended, so a reader that remembers a byte offset can follow it:

    {"kind": "run", "key": hex}                                    first line: the run's identity, for good
    {"kind": "metrics", "step": 7, "time": seconds, "values": {name: number}}
    {"kind": "params", "values": {key: value}}                     {"kind": "tags", "values": {key: text}}
    {"kind": "artifact", "path": "score.html", "folder": ""}       path inside the run folder
    {"kind": "table", "path": "tables/score_per_joint.json"}       likewise; rows that MLflow shows as a table
    {"kind": "image", "path": ..., "name": "val/samples", "step": 7, "time": seconds}
    {"kind": "model", "path": "model.safetensors", "step": 7}      weights that MLflow shall be able to serve
    {"kind": "status", "value": "running", "time": seconds}        running, finished, failed or stopped
    {"kind": "rewind", "step": 5}                                  what was logged after step 5 is void

JSON has no NaN and no infinity: such numbers are written as the strings "NaN", "Infinity" and "-Infinity", which
`float` reads back. A resumed run appends `rewind` and logs the steps after it once more; nothing is edited.
"""

import errno
import json
import math
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from poselib.errors import InputError

JOURNAL_NAME: Final = "metrics.jsonl"
Status = Literal["running", "finished", "failed", "stopped"]


class NullJournal:
    """The journal of every rank but 0: takes everything, writes nothing."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log named numbers at a step."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Log flat settings of the run."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Log labels of the run."""

    def artifact(self, path: str | Path, folder: str = "") -> None:
        """Name a finished file or folder inside the run folder that MLflow shall hold too."""

    def table(self, path: str | Path) -> None:
        """Name a finished file of rows (`tables.write_table`) inside the run folder."""

    def image(self, path: str | Path, name: str, step: int) -> None:
        """Name a finished picture inside the run folder, one of a row of pictures of the same name over the steps."""

    def model(self, path: str | Path, step: int) -> None:
        """Name finished weights inside the run folder that MLflow shall be able to serve."""

    def status(self, value: Status) -> None:
        """Log how the run stands."""

    def rewind(self, step: int) -> None:
        """Declare void what was logged for steps after `step`."""

    def close(self) -> None:
        """End writing."""

    def __enter__(self) -> Self:
        """The journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End writing."""
        self.close()


class Journal(NullJournal):
    """Appends to the journal of a run; for rank 0 alone. Usable from the start, and as a context manager.

    Opening makes the run folder if needed, and repairs a last line that a killed writer left unfinished.

    Raises:
        InputError: the run folder cannot be written.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = Path(run_dir)
        path = self.run_dir / JOURNAL_NAME
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}): give a run folder that can be") from error
        _repair(path)
        if path.stat().st_size == 0:
            self._append({"kind": "run", "key": uuid.uuid4().hex}, sync=True)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log named numbers at a step; anything that `float` takes."""
        plain = {name: _encode_number(float(value)) for name, value in values.items()}
        self._append({"kind": "metrics", "step": int(step), "time": time.time(), "values": plain})

    def params(self, values: Mapping[str, Any]) -> None:
        """Log flat settings of the run; what is no JSON value is written as its `str`."""
        self._append({"kind": "params", "values": {key: _plain(value) for key, value in values.items()}})

    def tags(self, values: Mapping[str, str]) -> None:
        """Log labels of the run; a later value replaces an earlier one."""
        self._append({"kind": "tags", "values": {key: str(value) for key, value in values.items()}})

    def artifact(self, path: str | Path, folder: str = "") -> None:
        """Name a finished file or folder inside the run folder that MLflow shall hold too.

        Raises:
            ValueError: the path leads out of the run folder.
        """
        self._append({"kind": "artifact", "path": self._inside(path), "folder": folder})

    def table(self, path: str | Path) -> None:
        """Name a finished file of rows (`tables.write_table`) inside the run folder; errors as for `artifact`."""
        self._append({"kind": "table", "path": self._inside(path)})

    def image(self, path: str | Path, name: str, step: int) -> None:
        """Name a finished picture inside the run folder, one of a row of pictures of the same name over the steps;
        errors as for `artifact`."""
        place = self._inside(path)
        self._append({"kind": "image", "path": place, "name": name, "step": int(step), "time": time.time()})

    def model(self, path: str | Path, step: int) -> None:
        """Name finished weights inside the run folder that MLflow shall be able to serve; errors as for `artifact`."""
        self._append({"kind": "model", "path": self._inside(path), "step": int(step)}, sync=True)

    def status(self, value: Status) -> None:
        """Log how the run stands."""
        self._append({"kind": "status", "value": value, "time": time.time()}, sync=True)

    def rewind(self, step: int) -> None:
        """Declare void what was logged for steps after `step`: a resumed run logs them again."""
        self._append({"kind": "rewind", "step": int(step)}, sync=True)

    def close(self) -> None:
        """Bring everything to the disk and end writing."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def _inside(self, path: str | Path) -> str:
        full = (self.run_dir / path).resolve()
        root = self.run_dir.resolve()
        if not full.is_relative_to(root):
            raise ValueError(f"{path} lies outside {self.run_dir}")
        return full.relative_to(root).as_posix()

    def _append(self, record: dict[str, Any], *, sync: bool = False) -> None:
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.run_dir / JOURNAL_NAME)) from error
        if written != len(line):
            # A full disk took half a line: the next record must not be glued to it.
            os.ftruncate(self._file.fileno(), os.fstat(self._file.fileno()).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.run_dir / JOURNAL_NAME))
        if sync:
            os.fsync(self._file.fileno())


def _encode_number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return _encode_number(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def _repair(path: Path) -> None:
    """End the last line: a whole record gets its newline, half a record goes."""
    with path.open("r+b") as file:
        data = file.read()
        tail = data[data.rfind(b"\n") + 1 :]
        if not tail:
            return
        if _parse(tail) is not None:
            file.write(b"\n")
        else:
            file.truncate(len(data) - len(tail))
        file.flush()
        os.fsync(file.fileno())


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None for what is none, as an unfinished write leaves it."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "kind" in record else None


def read_records(run_dir: Path, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The records of the finished lines from byte `start` on, each with the byte offset behind it.

    Lines that hold no record are passed over.

    Raises:
        InputError: there is no journal.
    """
    path = Path(run_dir) / JOURNAL_NAME
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give the folder of a run") from error
    with file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            record = _parse(line)
            if record is not None:
                yield record, start


@dataclass(frozen=True)
class Metrics:
    """What was logged in one call."""

    step: int
    time: float
    values: dict[str, float]


def read_metrics(run_dir: Path) -> list[Metrics]:
    """The history that counts, in the order it was written: what a resumed run logged again replaces the old.

    Raises:
        InputError: there is no journal.
    """
    history: list[Metrics] = []
    for record, _ in read_records(run_dir):
        if record["kind"] == "rewind":
            history = [entry for entry in history if entry.step <= record["step"]]
        elif record["kind"] == "metrics":
            history.append(decode_metrics(record))
    return history


def last_status(run_dir: Path, since: float = 0.0) -> str:
    """How a run stands: its last status, empty where it has none, or none since a time (seconds since 1970)."""
    statuses = (record for record, _ in read_records(run_dir) if record["kind"] == "status")
    found = [record["value"] for record in statuses if record["time"] >= since]
    return found[-1] if found else ""


def decode_metrics(record: dict[str, Any]) -> Metrics:
    """The numbers of a `metrics` record."""
    values = {name: float(value) for name, value in record["values"].items()}
    return Metrics(int(record["step"]), float(record["time"]), values)


def curve(history: list[Metrics], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name in a history."""
    points = [(entry.step, entry.values[name]) for entry in history if name in entry.values]
    return [step for step, _ in points], [value for _, value in points]
