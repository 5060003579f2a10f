"""Scores of poses, in NumPy and float64. Poses are `n j 3` mm and root-relative unless a function says otherwise."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from poselib.skeleton import ROOT

Poses = Float[np.ndarray, "n j 3"]
Alignment = Literal["rigid", "similarity"]
"""PA-MPJPE comes in two kinds: rotation and translation alone, or scale as well. Always say which."""

PCK_MM = 150.0
AUC_THRESHOLDS_MM = np.arange(0.0, PCK_MM + 1, 5.0)
PCKH_SHARE = 0.5


def root_relative(joints_mm: Poses) -> Poses:
    """Poses `n j 3` mm, camera frame, seen from their pelvis."""
    joints_mm = joints_mm.astype(np.float64)
    return joints_mm - joints_mm[:, ROOT, None]


def joint_errors_mm(predicted: Poses, true: Poses) -> Float[np.ndarray, "n j"]:
    """Euclidean distance of every joint to its truth, in mm."""
    return np.linalg.norm(predicted.astype(np.float64) - true.astype(np.float64), axis=-1)


def mpjpe_mm(predicted: Poses, true: Poses) -> float:
    """Mean per-joint position error: the mean of `joint_errors_mm` over all joints of all poses.

    Raises:
        ValueError: there are no poses.
    """
    return _mean(joint_errors_mm(predicted, true))


def pa_mpjpe_mm(predicted: Poses, true: Poses, alignment: Alignment) -> float:
    """MPJPE after each pose is laid on its truth as well as `alignment` allows.

    Raises:
        ValueError: there are no poses.
    """
    return mpjpe_mm(align(predicted, true, alignment), true)


def align(predicted: Poses, true: Poses, alignment: Alignment) -> Poses:
    """Rotate, shift and, for `similarity`, scale each pose onto its truth by least squares. Never mirrors.

    A pose whose joints all coincide keeps its scale; one that is not finite comes back as NaN.

    Sources: Kabsch, "A solution for the best rotation to relate two sets of vectors", 1976; Umeyama, "Least-squares
    estimation of transformation parameters between two point patterns", 1991, for reflections and scale.
    """
    predicted, true = predicted.astype(np.float64), true.astype(np.float64)
    finite = np.isfinite(predicted).all(axis=(1, 2)) & np.isfinite(true).all(axis=(1, 2))
    aligned = np.full_like(predicted, np.nan)
    centre = true[finite].mean(axis=1, keepdims=True)
    source = predicted[finite] - predicted[finite].mean(axis=1, keepdims=True)
    u, singular, vt = np.linalg.svd(source.transpose(0, 2, 1) @ (true[finite] - centre))
    # The axis with the least to lose turns back what would be a reflection.
    handed = np.ones_like(singular)
    handed[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = (u * handed[:, None, :]) @ vt
    scale = np.ones(len(source))
    if alignment == "similarity":
        spread = (source**2).sum(axis=(1, 2))
        np.divide((singular * handed).sum(axis=1), spread, out=scale, where=spread > 0)
    aligned[finite] = scale[:, None, None] * source @ rotation + centre
    return aligned


def pck(errors_mm: Float[np.ndarray, "n j"], threshold_mm: float = PCK_MM) -> float:
    """Share of joints, 0 to 1, whose error is at most `threshold_mm`. Source: Mehta et al., 2017 (MPI-INF-3DHP)."""
    return _mean(errors_mm <= threshold_mm)


def auc(errors_mm: Float[np.ndarray, "n j"]) -> float:
    """Mean PCK, 0 to 1, over thresholds from 0 to 150 mm in 5 mm steps. Source: Mehta et al., 2017."""
    return float(np.mean([pck(errors_mm, threshold) for threshold in AUC_THRESHOLDS_MM]))


def pckh(
    predicted_px: Float[np.ndarray, "n j 2"],
    true_px: Float[np.ndarray, "n j 2"],
    head_size_px: Float[np.ndarray, " n"],
    visible: Bool[np.ndarray, "n j"],
    threshold: float = PCKH_SHARE,
) -> float:
    """Share of visible joints, 0 to 1, that lie within `threshold` head sizes of their truth.

    Args:
        predicted_px: px of any one picture per sample.
        true_px: px of the same picture.
        head_size_px: px of the same picture; samples with 0 are left out.
        visible: which joints count.
        threshold: in head sizes.

    Raises:
        ValueError: no joint counts.

    Source: Andriluka et al., "2D Human Pose Estimation: New Benchmark and State of the Art Analysis", 2014.
    """
    distance = np.linalg.norm(predicted_px.astype(np.float64) - true_px.astype(np.float64), axis=-1)
    counted = visible & (head_size_px > 0)[:, None]
    return _mean((distance <= threshold * head_size_px[:, None])[counted])


def mean_by_action(errors_mm: Float[np.ndarray, "n j"], actions: Sequence[str]) -> dict[str, float]:
    """Mean error of each action's poses in mm, by the action's name in alphabetical order.

    Raises:
        ValueError: not one action per pose.
    """
    names = np.asarray(actions)
    if names.shape != errors_mm.shape[:1]:
        raise ValueError(f"{len(errors_mm)} poses need as many actions, not {len(names)}")
    return {str(name): _mean(errors_mm[names == name]) for name in np.unique(names)}


def action_mean_mm(errors_mm: Float[np.ndarray, "n j"], actions: Sequence[str]) -> float:
    """Mean of the actions' means in mm, each action counting the same however many poses it has.

    Raises:
        ValueError: not one action per pose, or there are no poses.
    """
    return _mean(np.array(list(mean_by_action(errors_mm, actions).values())))


def _mean(values: np.ndarray) -> float:
    if values.size == 0:
        raise ValueError("there is nothing to score")
    return float(values.mean(dtype=np.float64))
