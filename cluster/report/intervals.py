"""Confidence intervals of scores and of their differences, by the bootstrap."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

LEVEL: Final = 0.95
FEWEST_TAKES: Final = 8
"""With fewer takes than this, their resampling says nothing."""
_BATCH_NUMBERS: Final = 4_000_000


@dataclass(frozen=True, eq=False)
class Intervals:
    """Weighted means of some columns, then averages of such means, and the bounds of their intervals; NaN where there
    is nothing to resample."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def units(take: np.ndarray) -> tuple[np.ndarray, bool]:
    """What is resampled: takes, or single samples where there are too few takes; and whether it is takes.

    Frames of one take, and its four cameras, resemble each other: resampled one by one, they would seem to be far more
    evidence than they are. Source: Field and Welsh, "Bootstrapping clustered data", 2007.
    """
    if len(np.unique(take)) >= FEWEST_TAKES:
        return take, True
    return np.arange(len(take)), False


def intervals(
    values: np.ndarray,
    weights: np.ndarray,
    unit: np.ndarray,
    draws: int,
    averages: Sequence[Sequence[int]] = (),
) -> Intervals:
    """Means of columns with percentile intervals over resampled units.

    Differences of two runs on the same samples, given as `values`, make this the paired bootstrap.

    Args:
        values: `n k`, one column per figure.
        weights: `n k`, at least 0; what a sample counts in each figure.
        unit: `n`, samples with the same number are drawn together.
        draws: how many resamplings; they are the same for all columns, and for each call.
        averages: further figures behind the columns': each is the mean of these columns' means, taken anew in every
            draw. A column that weighs nothing in a draw is left out of it there.
    """
    number = np.unique(unit, return_inverse=True)[1]
    count = int(number.max()) + 1
    sums, mass = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(sums, number, values * weights)
    np.add.at(mass, number, weights)
    mean = _figures(sums.sum(axis=0), mass.sum(axis=0), averages)
    if count < 2:
        nothing = np.full_like(mean, np.nan)
        return Intervals(mean, nothing, nothing)

    def statistic(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.moveaxis(_figures(sums[drawn].sum(axis=axis - 1), mass[drawn].sum(axis=axis - 1), averages), -1, 0)

    with warnings.catch_warnings():
        # Of draws that say nothing of a figure, which SciPy's own bounds cannot pass over as those below do.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (np.arange(count),),
            statistic,
            n_resamples=draws,
            batch=max(1, _BATCH_NUMBERS // (count * values.shape[1])),
            confidence_level=LEVEL,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(0),
        )
    bounds = (50 * (1 - LEVEL), 100 - 50 * (1 - LEVEL))
    low, high = np.nanpercentile(found.bootstrap_distribution, bounds, axis=-1)
    return Intervals(mean, low, high)


def _figures(sums: np.ndarray, mass: np.ndarray, averages: Sequence[Sequence[int]]) -> np.ndarray:
    """Weighted sums and weights, `... k` each, to the columns' means and, behind them, the averages of some."""
    # A column may weigh nothing in all units of a draw: that draw then says nothing of it.
    with np.errstate(invalid="ignore"):
        means = sums / mass
    known = mass > 0
    further = [
        (np.where(known, means, 0)[..., list(some)].sum(axis=-1) / known[..., list(some)].sum(axis=-1))[..., None]
        for some in averages
    ]
    return np.concatenate([means, *further], axis=-1)
