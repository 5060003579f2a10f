"""The numbers of a report: overall figures, per action, per joint, and how sure their differences are."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from cluster.report.intervals import Intervals, intervals, units
from cluster.report.scored import ScoredRun, takes
from cluster.samples import Samples
from cluster.scorecard import FIGURES
from poselib import metrics
from poselib.skeleton import H36M_JOINTS, ROOT

ENOUGH_UNITS: Final = 8
"""An action of fewer takes gets no interval of its own."""
ACTION_MEAN: Final = "mpjpe_action_mean_mm"
MEANS: Final = tuple(key for key in FIGURES if key not in ("median_mm", ACTION_MEAN))
"""Overall figures that are means over samples. The median is none, so it has no interval here; nor is the mean of the
actions' means, which is taken anew from these in every draw."""
JOINTS: Final = tuple(name for joint, name in enumerate(H36M_JOINTS) if joint != ROOT)
"""The root's error is 0 by definition."""


@dataclass(frozen=True, eq=False)
class Measured:
    """One run's figures.

    Attributes:
        overall: by the keys of `FIGURES`.
        per_action: mm, by name.
        per_joint: mm, by name, without the root.
        columns: `n k`, every figure of `keys` for each sample: its mean under `weights` is the run's.
        weights: `n k`.
        keys: `k`, ("overall", key), ("action", name) or ("joint", name).
    """

    overall: dict[str, float]
    per_action: dict[str, float]
    per_joint: dict[str, float]
    columns: np.ndarray
    weights: np.ndarray
    keys: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Difference:
    """How a figure differs from the first run's: its mean and 95 % interval, `None` where there is none."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Sureness:
    """What the intervals stand on.

    Attributes:
        units: how many are resampled.
        by_take: whether they are takes, or single samples because there are too few takes.
    """

    units: int
    by_take: bool


def measure(samples: Samples) -> Measured:
    """All figures of a run."""
    predicted, true = samples.predicted_mm, samples.true_mm
    errors = metrics.joint_errors_mm(predicted, true)
    actions = [str(name) or "(none)" for name in samples.actions]
    names = sorted(set(actions))
    one_hot = np.array([[action == name for name in names] for action in actions], float)
    mpjpe = errors.mean(axis=1)
    hits = errors[..., None] <= metrics.AUC_THRESHOLDS_MM
    by_key = {
        "mpjpe_mm": mpjpe,
        "pa_mpjpe_rigid_mm": _aligned_mm(predicted, true, "rigid"),
        "pa_mpjpe_similarity_mm": _aligned_mm(predicted, true, "similarity"),
        "pck_150": (errors <= metrics.PCK_MM).mean(axis=1),
        "auc": hits.mean(axis=(1, 2)),
    }
    overall = np.stack([by_key[key] for key in MEANS], axis=1)
    joints = np.delete(errors, ROOT, axis=1)
    columns = np.concatenate([overall, np.repeat(mpjpe[:, None], len(names), axis=1), joints], axis=1)
    weights = np.concatenate([np.ones_like(overall), one_hot, np.ones_like(joints)], axis=1)
    means = (columns * weights).sum(axis=0) / weights.sum(axis=0)
    keys = (
        *(("overall", key) for key in MEANS),
        *(("action", name) for name in names),
        *(("joint", name) for name in JOINTS),
    )
    found = {
        kind: {name: float(mean) for (of, name), mean in zip(keys, means, strict=True) if of == kind}
        for kind in ("overall", "action", "joint")
    }
    found["overall"]["median_mm"] = float(np.median(errors))
    found["overall"][ACTION_MEAN] = float(np.mean(list(found["action"].values())))
    return Measured(found["overall"], found["action"], found["joint"], columns, weights, keys)


def compare(runs: list[ScoredRun], measured: list[Measured], draws: int) -> tuple[list[dict], dict, Sureness]:
    """Each further run's differences from the first by key, the first one's own figures with their intervals, and
    what the intervals stand on."""
    unit, by_take = units(takes(runs[0].samples))
    first = measured[0]
    keys = (*first.keys, ("overall", ACTION_MEAN))
    weights = np.concatenate([first.weights, np.ones((len(unit), 1))], axis=1)
    enough = np.array([len(np.unique(unit[weight > 0])) >= ENOUGH_UNITS for weight in weights.T])
    actions = [column for column, (kind, _) in enumerate(first.keys) if kind == "action"]

    def found(values: np.ndarray) -> dict[tuple[str, str], Difference]:
        return _named(intervals(values, first.weights, unit, draws, [actions]), enough, keys)

    others = [found(other.columns - first.columns) for other in measured[1:]]
    for other, differences in zip(measured[1:], others, strict=True):
        median = other.overall["median_mm"] - first.overall["median_mm"]
        differences[("overall", "median_mm")] = Difference(median, None, None)
    return others, found(first.columns), Sureness(len(np.unique(unit)), by_take)


def _named(found: Intervals, enough: np.ndarray, keys: tuple[tuple[str, str], ...]) -> dict:
    return {
        key: Difference(float(mean), *((float(low), float(high)) if known and np.isfinite(low) else (None, None)))
        for key, mean, low, high, known in zip(keys, found.mean, found.low, found.high, enough, strict=True)
    }


def _aligned_mm(predicted: np.ndarray, true: np.ndarray, alignment: metrics.Alignment) -> np.ndarray:
    return metrics.joint_errors_mm(metrics.align(predicted, true, alignment), true).mean(axis=1)
