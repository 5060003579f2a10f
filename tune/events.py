"""What Ray tells of a trial beside its results: that it starts with other settings, that it was lost and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

    from tune.searcher import SpaceSearcher


class Events(Callback):
    """Hands events on to the searcher, which keeps the records.

    Args:
        searcher: of the search.
    """

    def __init__(self, searcher: "SpaceSearcher") -> None:
        self._searcher = searcher

    def on_trial_start(self, iteration: int, trials: list["Trial"], trial: "Trial", **info: Any) -> None:
        """A trial starts, or goes on: before it takes over any state."""
        self._searcher.on_start(trial.trial_id, trial.config["values"])

    def on_trial_error(self, iteration: int, trials: list["Trial"], trial: "Trial", **info: Any) -> None:
        """A trial has ended with an error, `search.retries` included; follows the searcher's `on_trial_complete`."""
        self._searcher.on_lost(trial.trial_id, last_words(Path(trial.error_file)) if trial.error_file else "")

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles a search beside its own files, which are never read again: there is nothing to keep."""
        return {}


def last_words(error_file: Path) -> str:
    """The last line of what Ray wrote of an error; empty where it wrote nothing."""
    if not error_file.is_file():
        return ""
    lines = [line.strip() for line in error_file.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Failure # ")]
    return said[-1].removeprefix("tune.reasons.TrialFailed: ")[:300] if said else ""
