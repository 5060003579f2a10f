"""A study's figures: rows and findings, measured beside published, ready to be written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from tune.published import TABLES, Finding, Part, Row, Table
from tune.study_cases import Case, Result, read_result, seeds_there
from tune.study_statistics import Comparison, Scatter, compare, mean_and_sd, pool

Values = Mapping[str, list[float]]
"""Errors over seeds by `table/row`, mm."""


@dataclass(frozen=True)
class Measured:
    """One row and one part of the data.

    Attributes:
        row: as published.
        part: `val` is S8, `test` S9 and S11.
        published_mm: None where the report gives none.
        values_mm: over seeds; empty where none is done.
        epochs: the best ones; empty for the test.
    """

    row: Row
    part: Part
    published_mm: float | None
    values_mm: tuple[float, ...]
    epochs: tuple[float, ...]

    @property
    def mean_mm(self) -> float:
        """Over seeds; NaN without any."""
        return fmean(self.values_mm) if self.values_mm else math.nan

    @property
    def sd_mm(self) -> float:
        """Over seeds; NaN for fewer than two."""
        return mean_and_sd(self.values_mm)[1] if self.values_mm else math.nan


@dataclass(frozen=True)
class Judged:
    """A finding: what the report's figures say, and what was measured."""

    finding: Finding
    published_mm: float | None
    measured: Comparison


@dataclass(frozen=True)
class Filled:
    """A table with everything in it."""

    table: Table
    rows: tuple[Measured, ...]
    findings: tuple[Judged, ...]


@dataclass(frozen=True)
class Study:
    """All tables of a study, and the scatter that findings are judged by."""

    tables: tuple[Filled, ...]
    scatter: dict[Part, Scatter]
    trainings: int


def read_study(cases: list[Case]) -> Study:
    """Everything that the trainings of a study have come to.

    Raises:
        InputError: a run was trained with other settings.
    """
    results = {case.rows: [read_result(case, seed) for seed in seeds_there(case)] for case in cases}
    by_row = {row: done for rows, done in results.items() for row in rows}
    parts: tuple[Part, ...] = ("val", "test")
    values: dict[Part, Values] = {
        part: {
            row: [(one.scores or {})[part] for one in done if part in (one.scores or {})]
            for row, done in by_row.items()
        }
        for part in parts
    }
    # A training that stands for several rows counts once.
    scatter = {part: pool([values[part][rows[0]] for rows in results]) for part in parts}
    tables = tuple(_fill(table, by_row, values, scatter) for table in TABLES)
    return Study(tables, scatter, sum(one.trained for done in results.values() for one in done))


def _fill(
    table: Table, results: Mapping[str, list[Result]], values: Mapping[Part, Values], scatter: Mapping[Part, Scatter]
) -> Filled:
    rows = []
    for row in table.rows:
        place = f"{table.name}/{row.name}"
        scored = [one for one in results[place] if "val" in (one.scores or {})]
        epochs = tuple(one.epoch for one in scored)
        if row.published_mm is not None or not table.tests:
            rows.append(Measured(row, "val", row.published_mm, tuple(values["val"][place]), epochs))
        if table.tests:
            rows.append(Measured(row, "test", row.public_mm, tuple(values["test"][place]), ()))
    findings = tuple(
        Judged(one, _published(one), compare(one.weights, values[one.part], scatter[one.part]))
        for one in table.findings
    )
    return Filled(table, tuple(rows), findings)


def _published(finding: Finding) -> float | None:
    """The same sum over the report's figures, where it gives all of them."""
    rows = {f"{table.name}/{row.name}": row for table in TABLES for row in table.rows}
    figures = {
        place: rows[place].published_mm if finding.part == "val" else rows[place].public_mm for place in finding.weights
    }
    known = {place: figure for place, figure in figures.items() if figure is not None}
    if len(known) < len(figures):
        return None
    return sum(weight * known[place] for place, weight in finding.weights.items())
