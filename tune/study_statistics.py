"""Means, scatter, and whether a finding holds. Pure numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final, Literal

from scipy.stats import t

Verdict = Literal["yes", "no", "not decided", "not run"]
LEVEL: Final = 0.95
_FEWEST: Final = 4
"""Degrees of freedom below which the scatter itself is not known well enough to decide anything."""


@dataclass(frozen=True)
class Scatter:
    """The standard deviation over seeds, pooled over all rows of a study.

    Attributes:
        sd_mm: 0 where no row has two seeds.
        freedom: degrees of freedom behind it.
    """

    sd_mm: float
    freedom: int


@dataclass(frozen=True)
class Comparison:
    """A finding, measured.

    Attributes:
        difference_mm: the weighted sum of the rows' means; above 0 speaks for the finding.
        margin_mm: half the confidence interval at `LEVEL`.
        seeds: of the row that has fewest.
        verdict: whether the interval lies on one side of 0.
    """

    difference_mm: float
    margin_mm: float
    seeds: int
    verdict: Verdict


def mean_and_sd(values_mm: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; NaN for a deviation of fewer than two."""
    return fmean(values_mm), stdev(values_mm) if len(values_mm) > 1 else math.nan


def pool(rows: Sequence[Sequence[float]]) -> Scatter:
    """The scatter within rows, each about its own mean."""
    several = [row for row in rows if len(row) > 1]
    freedom = sum(len(row) - 1 for row in several)
    squares = sum((value - fmean(row)) ** 2 for row in several for value in row)
    return Scatter(math.sqrt(squares / freedom) if freedom else 0.0, freedom)


def compare(weights: Mapping[str, float], values_mm: Mapping[str, Sequence[float]], scatter: Scatter) -> Comparison:
    """A weighted sum of rows against 0, by Student's t with the pooled scatter.

    Rows are compared one pair at a time, without correction for how many comparisons there are.
    """
    if not all(values_mm.get(row) for row in weights):
        return Comparison(math.nan, math.nan, 0, "not run")
    difference = sum(weight * fmean(values_mm[row]) for row, weight in weights.items())
    seeds = min(len(values_mm[row]) for row in weights)
    if scatter.freedom < _FEWEST:
        return Comparison(difference, math.nan, seeds, "not decided")
    variance = sum(weight**2 / len(values_mm[row]) for row, weight in weights.items())
    margin = float(t.ppf(0.5 + LEVEL / 2, scatter.freedom)) * scatter.sd_mm * math.sqrt(variance)
    decided: Verdict = "yes" if difference > 0 else "no"
    return Comparison(difference, margin, seeds, decided if abs(difference) > margin else "not decided")
