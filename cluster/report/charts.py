"""What the charts of a report show: how errors are spread out, and whether they were foretold."""

from typing import Any, Final

import numpy as np

from cluster.report.scored import ScoredRun
from poselib.calibration import Calibration, calibrate_poses
from poselib.metrics import joint_errors_mm

_BINS: Final = 40
_POINTS: Final = 151


def histogram(runs: list[ScoredRun]) -> dict[str, Any]:
    """Poses by their MPJPE, in bins that all runs share; the last one holds all beyond the 99.5th percentile too."""
    errors = [run.samples.errors_mm.astype(np.float64) for run in runs]
    top = max(float(np.percentile(np.concatenate(errors), 99.5)), 1.0)
    edges = np.linspace(0, top, _BINS + 1)
    return {
        "middles": np.round((edges[1:] + edges[:-1]) / 2, 2).tolist(),
        "poses": [np.histogram(np.minimum(values, top), edges)[0].tolist() for values in errors],
    }


def within(runs: list[ScoredRun]) -> dict[str, Any]:
    """Which share of all joints, in percent, lies within a distance of its truth."""
    errors = [np.sort(joint_errors_mm(run.samples.predicted_mm, run.samples.true_mm), axis=None) for run in runs]
    top = max(200.0, max(float(np.percentile(values, 98)) for values in errors))
    distances = np.linspace(0, top, _POINTS)
    shares = [100 * np.searchsorted(values, distances, side="right") / len(values) for values in errors]
    return {"mm": np.round(distances, 1).tolist(), "share": [np.round(share, 2).tolist() for share in shares]}


def calibrations(runs: list[ScoredRun]) -> list[Calibration | None]:
    """Each run's calibration; None for a head without heat maps."""
    return [calibrate_poses(one.spread_mm, one.predicted_mm, one.true_mm) for one in (run.samples for run in runs)]
