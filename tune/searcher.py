"""What is tried next: a grid, or what an Optuna sampler proposes, with a record of every trial for going on later."""

import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.study import StudyDirection
from ray.tune import Stopper
from ray.tune.search import Searcher

from tune.configuration import trial_name
from tune.reasons import noted_failure
from tune.records import IDS, TrialRecord, read_trials, write_trial
from tune.settings import SearchSettings
from tune.space import Choice, Range, Space, Values, label
from tune.trial import BEST_VALUES, ENDED, ray_name
from tune.tried import Tried

_SAMPLERS: Final[dict[str, Callable[[int, int], optuna.samplers.BaseSampler]]] = {
    "random": lambda seed, _: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed, _: optuna.samplers.TPESampler(seed=seed),
    "nsga2": lambda seed, trials: optuna.samplers.NSGAIISampler(seed=seed, population_size=population(trials)),
}
_GENERATION: Final = "NSGAIISampler:generation"
"""Where Optuna's NSGA-II keeps a trial's generation; without it, it would breed from no trial of an earlier start."""
_MOST_ASKED: Final = 10
"""Proposals of what was tried before; then one that was not is drawn, so that known scores do not drown the others."""


def population(trials: int) -> int:
    """Trials of a generation of NSGA-II: a few generations of what a search has, where Optuna takes 50 of any."""
    return max(4, min(50, round(trials / 5)))


class SearchOver(Stopper):
    """Ends all trials once the search as a whole is over."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped alone."""
        return False

    def stop_all(self) -> bool:
        """Whether the search is over."""
        return self._is_over()

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles a search beside its own files, which are never read again: there is nothing to keep."""
        return {}


class SpaceSearcher(Searcher):
    """Proposes the trials of a search; lives in the driver.

    Trials that an earlier start left on their way come first, with the values they had; ended ones are told to the
    sampler. Nothing is proposed twice, and a finite space comes to an end; the members of a population alone may begin
    alike, as they part later.

    Args:
        space: to choose from.
        settings: of the search.
        folder: of the search.
        is_over: whether the search is being stopped as a whole; trials that end then are not over.
        on_change: told each record that is written.
    """

    def __init__(
        self,
        space: Space,
        settings: SearchSettings,
        folder: Path,
        is_over: Callable[[], bool],
        on_change: Callable[[TrialRecord], None],
    ) -> None:
        super().__init__(metric=ray_name(settings.metrics[0]), mode=settings.modes[0])
        self._space, self._settings, self._folder = space, settings, folder
        self._is_over, self._on_change = is_over, on_change
        (folder / IDS).mkdir(exist_ok=True)
        past = read_trials(folder)
        self.waiting = [record for record in past if record.status == "waiting"]
        self.next_number = max((record.number for record in past), default=-1) + 1
        self.live: dict[str, TrialRecord] = {}
        self._lost: dict[str, TrialRecord] = {}
        self._tried = Tried(space, past)
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._random = random.Random(settings.seed)
        self._grid: Iterator[Values] | None = None
        if settings.searcher == "grid":
            self._grid = (values for values in space.all() if values not in self._tried)
        else:
            self._study = self._open_study(past)

    def suggest(self, trial_id: str) -> Any:
        """The configuration of Ray's next trial; the word for the end of a grid."""
        if self.waiting:
            record = replace(self.waiting.pop(0), reason="")
            if self._grid is None:
                self._study.enqueue_trial(self._written(record.values)[0])
                self._asked[trial_id] = self._ask()[0]
        else:
            values = self._propose(trial_id)
            if values is None:
                return Searcher.FINISHED
            number = self.next_number
            self.next_number += 1
            record = TrialRecord(number, trial_name(number), uuid.uuid4().hex, values)
        self._note(record)
        (self._folder / IDS / trial_id).write_text(record.name)
        self.live[trial_id] = record
        return {"search": str(self._folder), "project": str(Path.cwd()), "values": record.values}

    def on_start(self, trial_id: str, values: Values) -> None:
        """Note the settings that a trial starts or goes on with: population-based training changes them."""
        record = self.live.get(trial_id)
        if record is not None and record.values != values:
            kept = record.scored_values if record.scores else {}
            self.live[trial_id] = replace(record, values=dict(values), best_values=kept)
            self._note(self.live[trial_id])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note how far a trial has come."""
        self.live[trial_id] = self._with_result(self.live[trial_id], result)
        self._note(self.live[trial_id])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note how a trial ended and tell the sampler. One that was lost without an ending of its own waits on."""
        record, trial = self.live.pop(trial_id), self._asked.pop(trial_id, None)
        (self._folder / IDS / trial_id).unlink(missing_ok=True)
        if result is not None:
            record = self._with_result(record, result)
        why = noted_failure(self._folder / record.name)
        if error and why:
            record = replace(record, status="failed", reason=why)
        elif error:
            self._lost[trial_id] = record
        elif result is not None and result.get(ENDED):
            record = replace(record, status="finished")
        elif not self._is_over():
            words = f"{self._settings.scheduler} stopped it after {record.epochs:g} epochs"
            record = replace(record, status="stopped early", reason=words)
        if record.status != "waiting":
            record = replace(record, ended=time.time())
        self._note(record)
        if trial is not None and record.status != "waiting":
            self._tell(trial, record)

    def on_lost(self, trial_id: str, words: str) -> None:
        """Note why a trial has ended that has no ending of its own: it goes on when the search is resumed."""
        record = self._lost.pop(trial_id, None)
        if record is not None:
            self._note(replace(record, reason=words or "its process on the cluster was lost"))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles a search beside its own files, which are never read again: there is nothing to keep."""
        return {}

    def _propose(self, trial_id: str) -> Values | None:
        """The next configuration; None where all were tried."""
        if self._grid is not None:
            return next(self._grid, None)
        trial, values = self._ask()
        if self._settings.scheduler != "pbt":
            for _ in range(_MOST_ASKED):
                if values not in self._tried:
                    break
                self._tell_scores(trial, self._tried.scores(values))
                trial, values = self._ask()
            if values in self._tried:
                return self._propose_left(trial_id, trial)
        self._asked[trial_id] = trial
        return values

    def _propose_left(self, trial_id: str, refused: optuna.trial.Trial) -> Values | None:
        """Any of what is left of a finite space, in place of a proposal that was tried before."""
        self._tell_scores(refused, {})
        left = self._tried.left()
        if not left:
            return None
        self._study.enqueue_trial(self._written(self._random.choice(left))[0])
        self._asked[trial_id], values = self._ask()
        return values

    def _tell(self, trial: optuna.trial.Trial, record: TrialRecord) -> None:
        """Tell the sampler how a trial that it proposed has ended."""
        if record.best_values and record.status != "failed":  # the scores are of other settings than were proposed
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            self._study.add_trial(self._finished(record))
        else:
            self._tell_scores(trial, record.scores if record.status != "failed" else {})

    def _tell_scores(self, trial: optuna.trial.Trial, scores: dict[str, float]) -> None:
        whole = all(name in scores for name in self._settings.metrics)
        values = [scores[name] for name in self._settings.metrics] if whole else None
        self._study.tell(trial, values, optuna.trial.TrialState.COMPLETE if whole else optuna.trial.TrialState.FAIL)

    def _ask(self) -> tuple[optuna.trial.Trial, Values]:
        trial = self._study.ask()

        def suggest(name: str, domain: Choice | Range) -> Any:
            if isinstance(domain, Choice):
                known = {label(value): value for value in domain.values}
                return known[trial.suggest_categorical(name, list(known))]
            if domain.whole:
                return trial.suggest_int(
                    name, int(domain.low), int(domain.high), step=int(domain.step) or 1, log=domain.log
                )
            return trial.suggest_float(name, domain.low, domain.high, step=domain.step or None, log=domain.log)

        return trial, self._space.draw(suggest)

    def _open_study(self, past: list[TrialRecord]) -> optuna.Study:
        """A study in memory that knows the trials that have ended."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        words = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
        # Another seed for each start, or it would draw again what has been tried.
        trials = self._settings.trials
        sampler = _SAMPLERS[self._settings.searcher](self._settings.seed * 1_000_003 + len(past), trials)
        study = optuna.create_study(sampler=sampler, directions=[words[mode] for mode in self._settings.modes])
        complete = 0
        for record in past:
            if record.status == "waiting":
                continue
            ended = self._finished(record, complete // population(trials))
            study.add_trial(ended)
            complete += ended.state == optuna.trial.TrialState.COMPLETE
        return study

    def _finished(self, record: TrialRecord, generation: int = 0) -> optuna.trial.FrozenTrial:
        """A trial that has ended, as Optuna writes it."""
        params, distributions = self._written(record.scored_values)
        good = record.status != "failed" and all(name in record.scores for name in self._settings.metrics)
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState.COMPLETE if good else optuna.trial.TrialState.FAIL,
            params=params,
            distributions=distributions,
            values=[record.scores[name] for name in self._settings.metrics] if good else None,
            system_attrs={_GENERATION: generation},
        )

    def _written(self, values: Values) -> tuple[dict[str, Any], dict[str, Any]]:
        """A configuration as Optuna writes it: parameters and their distributions."""
        params: dict[str, Any] = {}
        distributions: dict[str, Any] = {}

        def note(name: str, domain: Choice | Range) -> Any:
            names = name.split(" where ")[0].split(", ")
            value = values[names[0]] if len(names) == 1 else [values[one] for one in names]
            if isinstance(domain, Choice):
                params[name] = label(value)
                distributions[name] = optuna.distributions.CategoricalDistribution([label(v) for v in domain.values])
            elif domain.whole:
                params[name] = value
                distributions[name] = optuna.distributions.IntDistribution(
                    int(domain.low), int(domain.high), domain.log, int(domain.step) or 1
                )
            else:
                params[name] = value
                distributions[name] = optuna.distributions.FloatDistribution(
                    domain.low, domain.high, domain.log, domain.step or None
                )
            return value

        self._space.draw(note)
        return params, distributions

    def _with_result(self, record: TrialRecord, result: dict[str, Any]) -> TrialRecord:
        best = {name: result.get(f"best_{ray_name(name)}") for name in self._settings.metrics}
        scores = {name: float(value) for name, value in best.items() if value is not None}
        gave = {key: result.get(f"{BEST_VALUES}/{key}", value) for key, value in record.values.items()}
        return replace(
            record,
            scores=scores or record.scores,
            best_values={} if gave == record.values else gave,
            epochs=result.get("epochs", record.epochs),
        )

    def _note(self, record: TrialRecord) -> None:
        write_trial(self._folder, record)
        self._tried.note(record)
        self._on_change(record)
