"""`trial.json`: what the driver knows of a trial, and all that a search needs to go on. Written by the driver alone."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from cluster.tracking.files import read_json, write_json
from cluster.tracking.search import TRIAL_RECORD

SEARCH_YAML: Final = "search.yaml"
IDS: Final = "ids"
"""Folder of a search with one file per Ray trial: the name of its run folder."""
Status = Literal["waiting", "finished", "stopped early", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: of the trial, from 0.
        name: of its folder in the search's.
        key: its identity in MLflow.
        values: what was chosen for it.
        status: `waiting` covers a trial on its way: a search that goes on takes it up again.
        reason: why it failed or was stopped; of a waiting one, how it was lost.
        scores: the search's metrics at the validation whose first metric was best.
        epochs: how far it came.
        ended: when, in seconds since 1970; null while it is waiting.
        best_values: the values that gave the scores, where they are others: population-based training changes them.
    """

    number: int
    name: str
    key: str
    values: dict[str, Any]
    status: Status = "waiting"
    reason: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    epochs: float = 0.0
    ended: float | None = None
    best_values: dict[str, Any] = field(default_factory=dict)

    @property
    def scored_values(self) -> dict[str, Any]:
        """The values that gave the scores."""
        return self.best_values or self.values


def write_trial(search: Path, record: TrialRecord) -> None:
    """Replace a trial's record."""
    folder = search / record.name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / TRIAL_RECORD, asdict(record))


def read_trial(folder: Path) -> TrialRecord:
    """The record of the trial in a folder.

    Raises:
        TypeError: it is not there, or damaged.
    """
    return TrialRecord(**read_json(folder / TRIAL_RECORD))


def read_trials(search: Path) -> list[TrialRecord]:
    """The records of a search by number; a damaged one is passed over."""
    found = []
    for path in search.glob(f"t*/{TRIAL_RECORD}"):
        content = read_json(path)
        if content and re.fullmatch(r"t\d{4,}", path.parent.name):
            found.append(TrialRecord(**content))
    return sorted(found, key=lambda record: record.number)
