"""Whether a network knows how wrong it is: predicted spread against true error."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from scipy.special import gammainc

from poselib.metrics import joint_errors_mm
from poselib.settings import ModelSettings
from poselib.skeleton import ROOT

NEAR_MM: Final = 150.0
"""The distance that a joint's confidence speaks of: that of 3D PCK."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Joints sorted by their predicted spread, in bins of equally many.

    Attributes:
        predicted_mm: `k`, root mean square of the predicted spreads of each bin, rising.
        observed_mm: `k`, root mean square of the true errors there.
        counts: `k`, joints in each bin.
        error: the one number, 0 at best: the mean over the bins of |observed - predicted| / predicted.
        ratio: root mean square error over root mean square spread of all joints: 2 means errors twice as large as
            predicted.
        rank_correlation: Spearman's, between spread and error: whether larger spreads mean larger errors at all.
    """

    predicted_mm: Float[np.ndarray, " k"]
    observed_mm: Float[np.ndarray, " k"]
    counts: Int[np.ndarray, " k"]
    error: float
    ratio: float
    rank_correlation: float


def calibrate(spread_mm: Float[np.ndarray, "..."], error_mm: Float[np.ndarray, "..."], bins: int = 10) -> Calibration:
    """The reliability table of predicted spreads, and its number.

    Args:
        spread_mm: any shape, mm: root of the summed variances along the three axes, as `joint_spread_mm` gives it.
        error_mm: same shape, mm: distances from the true joints. Joints whose spread or error is not finite, such as
            those of a head without heat maps, do not count; nor do errors that are 0 by definition, so leave the root
            out of root-relative ones.
        bins: how many, where there are enough joints.

    Raises:
        ValueError: shapes differ, no bins, or no joint left.

    Source: expected normalised calibration error of Levi et al., "Evaluating and Calibrating Uncertainty Prediction in
    Regression Tasks", 2019.
    """
    if spread_mm.shape != error_mm.shape or bins < 1:
        raise ValueError(f"spreads {spread_mm.shape} and errors {error_mm.shape} in {bins} bins cannot be compared")
    known = np.isfinite(spread_mm) & np.isfinite(error_mm)
    spread, error = spread_mm[known].astype(np.float64), error_mm[known].astype(np.float64)
    if not len(spread):
        raise ValueError("no joint has both a spread and an error")
    order = np.argsort(spread, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    predicted = np.array([_rms(spread[part]) for part in parts])
    observed = np.array([_rms(error[part]) for part in parts])
    # A heat map of one single cell predicts no error at all; a hundredth of a millimetre keeps the ratio finite.
    relative = np.abs(observed - predicted) / np.maximum(predicted, 0.01)
    return Calibration(
        predicted_mm=predicted,
        observed_mm=observed,
        counts=np.array([len(part) for part in parts]),
        error=float(relative.mean()),
        ratio=_rms(error) / max(_rms(spread), 0.01),
        rank_correlation=_spearman(spread, error),
    )


def calibrate_poses(
    spread_mm: Float[np.ndarray, "n 17"],
    predicted_mm: Float[np.ndarray, "n 17 3"],
    true_mm: Float[np.ndarray, "n 17 3"],
) -> Calibration | None:
    """The spreads of scored poses against their errors; None for a head without heat maps.

    The two do not quite speak of the same: a spread is that of the joint's own place, an error is root-relative, as
    every figure of a score is. The pelvis' error is in it too: it adds to the joint's, or cancels it where both are off
    alike. The root itself, whose error is 0 by definition, is left out.

    Args:
        spread_mm: `n 17`; NaN where a head has no heat maps.
        predicted_mm: `n 17 3`, root-relative, camera frame.
        true_mm: the same, of the truth.
    """
    moving = np.arange(spread_mm.shape[1]) != ROOT
    if not np.isfinite(spread_mm[:, moving]).any():
        return None
    return calibrate(spread_mm[:, moving], joint_errors_mm(predicted_mm, true_mm)[:, moving])


def deviation_to_mm(
    deviation: Float[np.ndarray, "n j 3"],
    stored_from_crop: Float[np.ndarray, "n 2 3"],
    root_depth_mm: Float[np.ndarray, " n"],
    intrinsics: Float[np.ndarray, "n 4"],
    model: ModelSettings,
) -> Float[np.ndarray, "n j 3"]:
    """Standard deviations in volume units to mm, across the picture at the pelvis' depth.

    Args:
        deviation: `n j 3`, along u, v, z.
        stored_from_crop: `n 2 3`, affine maps from crop pixels to those of the intrinsics, without rotation.
        root_depth_mm: `n` mm.
        intrinsics: `n 4`, fx fy cx cy in px.
        model: the crop's size and the depth range.
    """
    crop_px = np.abs(stored_from_crop[:, [0, 1], [0, 1]]) * np.array([model.crop_width, model.crop_height])
    across = crop_px * root_depth_mm[:, None] / intrinsics[:, :2]
    along = np.full_like(across[:, :1], model.depth_range_mm)
    return deviation * np.concatenate([across, along], axis=1)[:, None]


def joint_spread_mm(deviation_mm: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "..."]:
    """Standard deviations along three axes, mm, as one distance: what the root mean square error should be."""
    return np.sqrt((deviation_mm**2).sum(axis=-1))


def confidence(spread_mm: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The chance, 0 to 1, that a joint lies within 150 mm of where it is said to be, if its spread is right.

    That of a normal distribution of this spread, alike in all directions: chi-squared with 3 degrees of freedom.
    NaN where the spread is NaN.
    """
    variances = np.maximum(spread_mm, 1e-6) ** 2 / 3
    return gammainc(1.5, NEAR_MM**2 / variances / 2)


def _rms(values: np.ndarray) -> float:
    return math.sqrt(float((values**2).mean()))


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where one of them does not vary."""
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)
