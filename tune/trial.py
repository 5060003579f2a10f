"""A trial as Ray sees it. The work is `pose train`'s: see tune/training.py."""

from functools import partial
from pathlib import Path
from typing import Any, Final

from ray import tune

from cluster.config import load
from cluster.fence import newest_step
from cluster.tracking.files import read_json, write_json
from poselib.errors import InputError
from tune.configuration import trial_run
from tune.reasons import note_failure
from tune.records import IDS, SEARCH_YAML, read_trial
from tune.settings import TuneSettings
from tune.training import Launch, Report, Training, launch_here

ENDED: Final = "has_ended"
"""In a result: whether the training itself is over. Ray sets `done` also where it stops a trial."""
BEST_VALUES: Final = "best_values"
"""In a result: the settings at the validation that was best."""
_POINTER: Final = "pointer.json"


class Trial(tune.Trainable):
    """Starts the ranks of one trial at the first step, reports each validation, and stops them when Ray says so.

    Its checkpoints in Ray are a few bytes that point at the run folder, which holds the real ones.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Find the trial's folder: it belongs to Ray's trial, while settings may come from another trial."""
        self.search, self.values = Path(config["search"]), config["values"]
        settings = load(TuneSettings, self.search / SEARCH_YAML)
        name = (self.search / IDS / self.trial_id).read_text()
        try:
            run, search = trial_run(settings, self.values, name), settings.search
        except InputError as error:
            note_failure(self.search / name, str(error))
            raise
        launch: Launch = launch_here
        if search.nodes > 1:
            from tune.nodes import RanksOnNodes

            ranks = run.engine.ranks or max(1, int(search.gpus))
            launch = partial(RanksOnNodes, search.nodes, ranks, search.cpus, search.gpus)
        changes = search.scheduler == "pbt"
        self.training = Training(run, search.metrics, Path(config["project"]), launch, changes)
        self.mode = search.modes[0]
        self.best: dict[str, float] = {}
        self.best_values: dict[str, Any] = {}
        self.step_done = 0
        if changes:  # its journal does not tell which settings gave which score
            record = read_trial(run.folder)
            self.best, self.best_values = record.scores, record.scored_values
            self.training.skip_to(newest_step(run.folder))

    def step(self) -> dict[str, Any]:
        """The next validation."""
        report = self.training.next()
        self.step_done = report.step
        self._keep_best(report)
        scores = {ray_name(name): value for name, value in (report.scores or self.best).items()}
        best = {f"best_{ray_name(name)}": value for name, value in self.best.items()} | {BEST_VALUES: self.best_values}
        return scores | best | {"epochs": report.epochs, "done": report.last, ENDED: report.last}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Point at the run folder."""
        best = {"best": self.best, BEST_VALUES: self.best_values}
        pointer = {"trial": self.training.run.name, "step": self.step_done} | best
        write_json(Path(checkpoint_dir) / _POINTER, pointer)

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        """Go on in the own folder, or from the state of the trial that is pointed at."""
        pointer = read_json(Path(checkpoint_dir) / _POINTER)
        self.best, self.best_values, self.step_done = pointer["best"], pointer[BEST_VALUES], pointer["step"]
        if pointer["trial"] == self.training.run.name:
            self.training.skip_to(self.step_done)
        else:
            self.training.take_over(self.search / pointer["trial"], self.step_done)

    def cleanup(self) -> None:
        """Have the training save and end."""
        self.training.stop()

    def _keep_best(self, report: Report) -> None:
        sign = 1 if self.mode == "min" else -1
        for first, value in list(report.scores.items())[:1]:
            if not self.best or sign * value < sign * self.best[first]:
                self.best, self.best_values = dict(report.scores), self.values


def ray_name(metric: str) -> str:
    """A metric's name in Ray, to which a slash means nesting."""
    return metric.replace("/", ".")
