"""The trainings of a study: its rows as runs, each different run once, and what each has come to."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from cluster.config import flatten, load
from cluster.run_folder import RUN_YAML
from cluster.settings import Run
from cluster.tracking.files import read_json
from cluster.tracking.journal import JOURNAL_NAME, curve, last_status, read_metrics
from poselib.errors import InputError
from tune.published import TABLES, Part, Row, Table
from tune.settings_study import ReportTablesSettings
from tune.study_studio import small_form

SCORE: Final = "score.json"
_SAME: Final = (
    *("data.", "crop.", "augment", "model.", "loss.", "optimizer.", "batch.micro", "seed", "weights", "init_"),
    *("epochs", "engine.precision"),
)
"""Settings that decide what a training finds."""


@dataclass(frozen=True)
class Case:
    """One training, whatever the number of rows that it stands for.

    Attributes:
        run: with the first row's name, and seed 0.
        config: the first row's packaged settings.
        rows: the rows that it stands for, as `table/row`.
        tests: whether the test subjects are scored too.
    """

    run: Run
    config: str
    rows: tuple[str, ...]
    tests: bool

    def of_seed(self, seed: int) -> Run:
        """The run of a seed, named as `pose submit train --seeds` names it."""
        return replace(self.run, seed=seed, name=f"{self.run.name}-seed{seed}")


@dataclass(frozen=True)
class Result:
    """What a training has come to.

    Attributes:
        trained: it has come to its end.
        complete: every score that its rows ask for is there too.
        scores: MPJPE in mm: of the best validation, and of the test.
        epoch: of the best validation.
    """

    trained: bool = False
    complete: bool = False
    scores: dict[Part, float] | None = None
    epoch: float = math.nan


def all_cases(settings: ReportTablesSettings) -> list[Case]:
    """The different trainings of all tables, in their order; their names do not depend on which are asked for."""
    found: dict[str, Case] = {}
    for table in TABLES:
        for row in table.rows:
            run = _run_of(settings, table, row)
            key = repr(replace(run, name="same"))
            case = found.get(key, Case(run, row.config, (), False))
            rows = (*case.rows, f"{table.name}/{row.name}")
            found[key] = replace(case, rows=rows, tests=case.tests or table.tests)
    return list(found.values())


def asked_for(settings: ReportTablesSettings, cases: list[Case]) -> list[Case]:
    """Those of the tables that `only` names."""
    return [case for case in cases if any(row.partition("/")[0] in settings.tables for row in case.rows)]


def seeds_there(case: Case) -> list[int]:
    """The seeds that have a folder."""
    numbers = (path.name.rpartition("-seed")[2] for path in case.run.runs_dir.glob(f"{case.run.name}-seed*"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def _run_of(settings: ReportTablesSettings, table: Table, row: Row) -> Run:
    """A row's run at the scale of the study."""
    run = _packaged(row.config)
    run = small_form(run, settings, table.same_backbone) if settings.scale == "studio" else _with_data(run, settings)
    tracking = settings.tracking
    if tracking == type(tracking)(enabled=tracking.enabled, uri=tracking.uri):
        tracking = replace(tracking, experiment=settings.study)
    return replace(run, runs_dir=settings.folder, epochs=settings.epochs or run.epochs, tracking=tracking)


@cache
def _packaged(config: str) -> Run:
    """The run in a file of the package; parsing it takes a tenth of a second, and many rows share one."""
    return load(Run, Path(config))


def _with_data(run: Run, settings: ReportTablesSettings) -> Run:
    """The run on the shard sets that were given."""
    data = replace(run.data, h36m=settings.h36m or run.data.h36m, mpii=settings.mpii or run.data.mpii)
    return replace(run, data=replace(data, voc=data.voc and (settings.voc or data.voc)))


def unfinished(cases: list[Case], seeds: tuple[int, ...]) -> Iterator[tuple[Case, int]]:
    """What is still to be done: every row with the first seed, then with the next."""
    for seed in seeds:
        for case in cases:
            if not read_result(case, seed).complete:
                yield case, seed


def read_result(case: Case, seed: int) -> Result:
    """What stands in the folder of a training.

    Raises:
        InputError: it was trained with other settings.
    """
    run = case.of_seed(seed)
    if not (run.folder / JOURNAL_NAME).is_file() or not (run.folder / RUN_YAML).is_file():
        return Result()
    _check_same(run)
    if last_status(run.folder) != "finished":
        return Result()
    scores: dict[Part, float] = {}
    epoch = math.nan
    values = curve(read_metrics(run.folder), "val/mpjpe_mm")[1]
    if values:
        scores["val"] = min(values)
        epoch = min((values.index(scores["val"]) + 1) * run.validate_every, run.epochs)
    test = read_json(run.folder / SCORE).get("mpjpe_mm")
    if test is not None:
        scores["test"] = float(test)
    return Result(True, not case.tests or "test" in scores, scores, epoch)


def _check_same(run: Run) -> None:
    """Never take another experiment's result for this one's."""
    before, now = flatten(load(Run, run.folder / RUN_YAML)), flatten(run)
    changed = [
        f"{key} {before.get(key)} -> {value}"
        for key, value in now.items()
        if key.startswith(_SAME) and before.get(key) != value and key != "data.shard_window"
    ]
    if changed:
        raise InputError(
            f"{run.folder} was trained with other settings ({'; '.join(changed[:3])}); give this study another name"
        )
