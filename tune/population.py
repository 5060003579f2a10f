"""Population-based training: its scheduler, and the searcher as it takes it; Ray refuses any that it wraps itself."""

from typing import Any

from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.search import SearchAlgorithm, Searcher
from ray.tune.search.search_generator import SearchGenerator


class Together(PopulationBasedTraining):
    """Population-based training of trials that all run at the same time.

    Ray's own has every trial pause that is due while another one waits for its place, as one does that is just taking
    over a better one's state; each pause costs a new start, during which the next trials pause, and so on for ever.
    """

    def on_trial_result(self, *args: Any, **named: Any) -> str:
        """A validation: go on, unless this trial is to take over another one's state."""
        decision = super().on_trial_result(*args, **named)
        return str(TrialScheduler.CONTINUE if decision == TrialScheduler.PAUSE else decision)


class Population(SearchAlgorithm):
    """Hands everything on to a searcher, whose proposals are where the population starts from."""

    def __init__(self, searcher: Searcher) -> None:
        self._inner = SearchGenerator(searcher)

    @property
    def metric(self) -> Any:
        """The searcher's."""
        return self._inner.metric

    @property
    def total_samples(self) -> int:
        """How many trials there shall be."""
        return int(self._inner.total_samples)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """The searcher knows its own."""
        return bool(self._inner.set_search_properties(metric, mode, config, **spec))

    def add_configurations(self, experiments: Any) -> None:
        """What all trials have in common."""
        self._inner.add_configurations(experiments)

    def next_trial(self) -> Any:
        """The next trial, or none."""
        return self._inner.next_trial()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A validation."""
        self._inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial."""
        self._inner.on_trial_complete(trial_id, result=result, error=error)

    def is_finished(self) -> bool:
        """Whether all were proposed."""
        return bool(self._inner.is_finished())

    def set_finished(self) -> None:
        """Propose no more."""
        self._inner.set_finished()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles a search beside its own files, which are never read again: there is nothing to keep."""
        return {}
