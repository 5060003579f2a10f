"""The trainings of a study on this machine, several at the same time, each in processes of its own."""

import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cluster.preemption import StopFlag
from tune.settings_study import ReportTablesSettings
from tune.study_cases import Case, read_result
from tune.study_run import tag, train_and_score
from tune.study_studio import make_data
from tune.training import TrialFailed

_LOOK_S: Final = 0.5


def train_here(settings: ReportTablesSettings, missing: list[tuple[Case, int]]) -> list[str]:
    """Train what is missing, in this order; returns what failed and why.

    Raises:
        KeyboardInterrupt: a signal ended it; all trainings have saved a checkpoint.
    """
    if settings.scale == "studio":
        make_data(settings)
    stop = StopFlag()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with stop.listening(), Progress(*columns, TimeElapsedColumn(), console=Console(), transient=True) as progress:
        trainings = _Trainings(settings, missing, progress, stop)
        trainings.run(at_once(settings, missing))
    if stop.requested:
        raise KeyboardInterrupt
    return trainings.failures


def at_once(settings: ReportTablesSettings, missing: list[tuple[Case, int]]) -> int:
    """How many trainings run at the same time: a studio's have one thread or so, others take the machine."""
    threads = max((case.run.engine.threads or 1 for case, _ in missing), default=1)
    fitting = len(os.sched_getaffinity(0)) // threads if settings.scale == "studio" else 1
    return min(settings.parallel or max(fitting, 1), max(len(missing), 1))


class _Trainings:
    """Trainings on their way.

    Args:
        settings: of the study.
        missing: what to train.
        progress: takes a bar for all, and one for each that runs.
        stop: once requested, all save and end.
    """

    def __init__(
        self, settings: ReportTablesSettings, missing: list[tuple[Case, int]], progress: Progress, stop: StopFlag
    ) -> None:
        self.settings, self.missing, self.progress, self.stop = settings, missing, progress, stop
        self.failures: list[str] = []
        self._ended = 0

    def run(self, width: int) -> None:
        """Keep `width` of them running until none is left, or the time is over."""
        began, waiting = time.monotonic(), list(self.missing)
        running: dict[Future[float], tuple[Case, int]] = {}
        whole = self.progress.add_task("all", total=len(waiting))
        self._say(f"{len(waiting)} trainings to do, {width} at the same time")
        with ThreadPoolExecutor(width) as pool:
            try:
                while (waiting or running) and not self.stop.requested:
                    if waiting and self.settings.minutes and time.monotonic() - began > 60 * self.settings.minutes:
                        self._say(f"{self.settings.minutes:g} minutes are over")
                        waiting.clear()
                    while waiting and len(running) < width:
                        case, seed = waiting.pop(0)
                        tag(case, case.of_seed(seed), self.settings.study, self.settings.scale)
                        running[pool.submit(self._train, case, seed)] = case, seed
                    for future in wait(running, _LOOK_S, FIRST_COMPLETED).done:
                        self._end(future, *running.pop(future))
                    self.progress.update(whole, completed=self._ended)
            finally:
                if self.stop.requested:
                    self._say(f"{self.stop.reason}: waiting for {len(running)} trainings to save")
                self.stop.requested = self.stop.requested or bool(running)  # an error of ours ends them as well

    def _train(self, case: Case, seed: int) -> float:
        """One of them, from wherever it stands to its score; runs in a thread of its own, returns seconds."""
        start, bar = time.monotonic(), self.progress.add_task(case.of_seed(seed).name, total=1.0)

        def show(part: float) -> None:
            self.progress.update(bar, completed=min(part, 1.0))

        try:
            train_and_score(case, seed, Path.cwd(), show, self.stop)
        finally:
            self.progress.remove_task(bar)
        return time.monotonic() - start

    def _end(self, future: Future[float], case: Case, seed: int) -> None:
        """Say what came of one."""
        name = case.of_seed(seed).name
        try:
            seconds = future.result()
            words = f"{_scores(case, seed)} ({seconds:.0f} s)"
        except TrialFailed as error:
            if self.stop.requested:
                return
            self.failures.append(f"{name}: {error}")
            words = f"failed: {error}"
        self._ended += 1
        self._say(f"[{self._ended}/{len(self.missing)}] {name}: {words}")

    def _say(self, text: str) -> None:
        console = self.progress.console
        console.print(text, highlight=False, soft_wrap=True, markup=False)
        console.file.flush()


def _scores(case: Case, seed: int) -> str:
    """What a training came to, in words."""
    result = read_result(case, seed)
    parts = {"val": f"S8 {{:.1f}} mm at epoch {result.epoch:g}", "test": "S9 and S11 {:.1f} mm"}
    return ", ".join(parts[part].format(score) for part, score in (result.scores or {}).items())
