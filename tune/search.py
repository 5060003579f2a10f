"""`pose tune`: a search from its YAML to its best trial. Ray runs the trials; this process drives and records."""

import time
from pathlib import Path
from typing import Final

from rich.console import Console

from cluster.config import dump, flatten
from cluster.preemption import StopFlag
from cluster.run_folder import held
from cluster.tracking.journal import Journal
from cluster.tracking.provenance import provenance_tags
from cluster.tracking.search import start_search_delivery
from cluster.world import current_job
from poselib.errors import InputError
from shards.atomic import write_whole
from tune.configuration import folder_of
from tune.earlier import hours_spent, load_search, refuse_existing, resumed_settings
from tune.handover import STOP_S, wait_until_saved
from tune.preflight import check_space
from tune.records import SEARCH_YAML, TrialRecord, read_trials
from tune.settings import SearchSettings, TuneSettings
from tune.space import Space, label, read_space
from tune.tried import combinations

_DELIVER_S: Final = 120.0
_DELIVER_STOPPED_S: Final = 15.0
"""After a signal the time limit is near, and --resume delivers the rest."""
_AFTERWARDS_S: Final = 60.0
"""Of the `STOP_S` between a signal and the time limit: for the page, the delivery, and the way back into the queue."""


def search(settings: TuneSettings) -> None:
    """`pose tune`: check everything, run the trials that are missing, name the best.

    Raises:
        InputError: the space, the data or the folder do not fit; nothing was started.
    """
    console = Console()
    resumed = bool(settings.resume)
    settings = resumed_settings(settings) if resumed else settings
    folder = folder_of(settings)
    if current_job().restart and not resumed and (folder / SEARCH_YAML).is_file():
        resumed, settings = True, load_search(settings.runs_dir, settings.name)  # the same job, started again by Slurm
    space = read_space(settings.space)
    if not resumed:
        refuse_existing(settings, folder)
    with console.status("holding the space against settings and shards"):
        count = check_space(settings, space)
    with held(folder):
        write_whole(folder / SEARCH_YAML, dump(settings).encode())
        Search(settings, space, folder, console, count).run()


class Search:
    """A search on its way: its journal, its trials' records, and when to stop.

    Args:
        settings: of the search.
        space: to choose from.
        folder: of the search, which this process holds.
        console: for the user.
        checked: how many configurations were tried beforehand.
    """

    def __init__(self, settings: TuneSettings, space: Space, folder: Path, console: Console, checked: int) -> None:
        self.settings, self.space, self.folder, self.console = settings, space, folder, console
        self.checked = checked
        # A population may hold several of a kind: they part later.
        self.combinations = 0 if settings.search.scheduler == "pbt" else combinations(space)
        self.trials = min(settings.search.trials, self.combinations or settings.search.trials)
        self.records = {record.number: record for record in read_trials(folder)}
        self.began = time.monotonic() - 3600 * hours_spent(folder)
        self.stop = StopFlag()
        self._asked_at = 0.0
        self._hours_over = ""

    def run(self) -> None:
        """Run trials until there are enough, or a limit or signal says stop."""
        self._announce()
        late = ""
        with Journal(self.folder) as self.journal:
            self._describe()
            delivery = start_search_delivery(self.folder, self.settings.tracking)
            status = "failed"
            try:
                with self.stop.listening():
                    self._run_trials()
                self._write_page()
                status = "stopped" if self.stopped_by or self._lost() else "finished"
            finally:
                self.journal.status(status)  # type: ignore[arg-type]
                late = delivery.finish(_DELIVER_STOPPED_S if self.stop.requested else _DELIVER_S)
        if late:
            self._say(late)
        self._last_line()

    @property
    def stopped_by(self) -> str:
        """The limit or signal that stopped the search; empty where none has."""
        return self._hours_over or self.stop.reason

    def is_over(self) -> bool:
        """Whether the search is to stop with trials on their way."""
        hours = self.settings.search.hours
        if hours and not self.stopped_by and time.monotonic() - self.began > 3600 * hours:
            self._hours_over = f"search.hours = {hours:g}"
        if self.stop.requested and not self._asked_at:
            self._asked_at = time.monotonic()
            self._say(f"{self.stop.reason}: waiting for the trials to save")
        return bool(self.stopped_by)

    def on_change(self, record: TrialRecord) -> None:
        """A trial was proposed, has come further, was lost or has ended."""
        self.records[record.number] = record
        if record.status == "waiting":
            if record.reason:
                self._say(f"{record.name} was lost and waits for --resume ({record.reason})")
            return
        ended = self._ended()
        first = self.settings.search.metrics[0]
        score = f", best {first} {record.scores[first]:.4g}" if first in record.scores else ""
        why = f" ({record.reason})" if record.reason else ""
        self._say(f"[{len(ended)}/{self.trials}] {record.name} {record.status}{score}{why}")
        best = best_trial(list(self.records.values()), self.settings.search, first)
        values = {"search/ended": len(ended), "search/failed": sum(one.status == "failed" for one in ended)}
        values |= {f"search/best/{name}": score for name, score in best.scores.items()} if best else {}  # type: ignore[misc]
        self.journal.metrics(len(ended), values)

    def await_trials(self) -> None:
        """Wait for trainings that are still saving: Ray itself lets go of a trial after ten seconds.

        After a signal they have what is left until the time limit, which may come `STOP_S` after it.
        """
        left = STOP_S
        if self.is_over() and self._asked_at:
            left -= time.monotonic() - self._asked_at + _AFTERWARDS_S
        waiting = [self.folder / record.name for record in self.records.values() if record.status == "waiting"]
        for folder in wait_until_saved(waiting, left):
            self._say(f"{folder} has not let go yet; its newest checkpoint is what it goes on from")

    def _run_trials(self) -> None:
        """Hand the trials that are missing to Ray."""
        missing = self.trials - len(self._ended())
        if missing <= 0 or self.is_over():
            return
        from tune.cluster import run_trials  # Ray takes seconds to import

        run_trials(self, missing)

    def _write_page(self) -> None:
        """The page of what there is; that none could be made ends no search."""
        from tune.report import write_page

        try:
            page = write_page(self.settings)
        except (InputError, OSError, ValueError) as error:
            self._say(f"no page: {error}")
            return
        self.journal.artifact(page)
        self._say(f"{page}: how settings and scores go together")

    def _announce(self) -> None:
        search, ended = self.settings.search, len(self._ended())
        done = f", {ended} of them done before" if ended else ""
        of = f" of {self.combinations} combinations" if self.combinations else ""
        self._say(
            f"{self.folder}: {self.trials}{of or ' trials'}{done} of {', '.join(self.settings.space)};"
            f" {search.searcher}, scheduler {search.scheduler}; {self.checked} configurations checked"
        )

    def _describe(self) -> None:
        """The search's settings for the tracker."""
        self.journal.params(
            flatten(self.settings.search) | {f"space.{k}": label(v) for k, v in self.settings.space.items()}
        )
        words = f"Search of {', '.join(self.settings.space)}; its trials are nested below."
        tags = {
            "tune.searcher": self.settings.search.searcher,
            "tune.scheduler": self.settings.search.scheduler,
            "tune.study": self.settings.name,
            "tune.kind": "search",
        }
        self.journal.tags(provenance_tags(self.folder, words) | tags)
        self.journal.artifact(SEARCH_YAML)
        self.journal.status("running")

    def _last_line(self) -> None:
        records = list(self.records.values())
        name = f"{self.settings.name}{self.settings.elsewhere}"
        if self.stopped_by:
            more = " --search.hours MORE" if self.stopped_by.startswith("search.hours") else ""
            self._say(f"stopped by {self.stopped_by}; go on with: pose tune --resume {name}{more}")
            return
        if self._lost():
            lost = ", ".join(record.name for record in self._lost())
            self._say(f"{lost} did not come to an end; go on with: pose tune --resume {name}")
        search = self.settings.search
        failed = sum(record.status == "failed" for record in records)
        best = best_trial(records, search, search.metrics[0])
        if best is None:
            raise InputError(f"none of the {len(records)} trials gave a score; {self.folder}/t*/train.log say why")
        scores = ", ".join(f"{key} {value:.4g}" for key, value in best.scores.items())
        failures = f", {failed} of them failed" if failed else ""
        self._say(f"{len(records)} trials{failures}; the best is {best.name}: {scores}; next: pose tune best {name}")

    def _ended(self) -> list[TrialRecord]:
        return [record for record in self.records.values() if record.status != "waiting"]

    def _lost(self) -> list[TrialRecord]:
        return [record for record in self.records.values() if record.status == "waiting" and record.reason]

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)


def best_trial(records: list[TrialRecord], search: SearchSettings, metric: str) -> TrialRecord | None:
    """The trial of the best score that has not failed; the earlier one of equals."""
    sign = 1 if search.modes[search.metrics.index(metric)] == "min" else -1
    scored = [record for record in records if metric in record.scores and record.status != "failed"]
    return min(scored, key=lambda record: (sign * record.scores[metric], record.number), default=None)
