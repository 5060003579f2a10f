"""The score card of an evaluation: every figure beside its baseline, under the protocol it was measured by."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.calibration_chart import calibration_chart
from cluster.samples import Samples, digest, encode_samples
from cluster.scorepage import Picture, picture_sheet, png, render_page
from cluster.tracking.files import write_json
from cluster.tracking.provenance import code_version
from cluster.words import amount, plain, unit
from poselib import metrics
from poselib.calibration import Calibration, calibrate_poses
from poselib.errors import InputError
from poselib.skeleton import H36M_JOINTS
from shards.atomic import write_whole
from shards.sample import Names

FORMAT_VERSION: Final = 2
_POSES: Final = ("predicted_mm", "true_mm", "predicted_px", "true_px", "spread_mm")
FIGURES: Final = {
    "mpjpe_mm": "MPJPE, mean of all poses",
    "mpjpe_action_mean_mm": "MPJPE, mean of the actions' means",
    "pa_mpjpe_rigid_mm": "PA-MPJPE, aligned by rotation and shift",
    "pa_mpjpe_similarity_mm": "PA-MPJPE, aligned with scale too",
    "median_mm": "median error of a joint",
    "pck_150": "3D PCK at 150 mm",
    "auc": "AUC of PCK, 0 to 150 mm",
}
"""The overall figures by their key in `score.json`; the same of the mean pose have `mean_pose_` before it."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What an evaluation hands over. Poses are root-relative, camera frame, mm, float32.

    Attributes:
        predicted_mm: `n 17 3`.
        true_mm: `n 17 3`.
        predicted_px: `n 17 2`, px of the stored picture.
        true_px: `n 17 2`, the same.
        spread_mm: `n 17`, predicted spread of each joint; NaN for a head without heat maps.
        keys: of the samples, `n` of them.
        rows: int64 `n`, their rows in the shard set.
        names: what each sample is called, `n` of them.
        mean_pose_mm: `17 3`, the mean pose of the training data: what a model that sees nothing would say.
        pictures: a dozen samples to look at.
        protocol: the protocol card; `synthetic: true` marks data that shows no real people.
    """

    predicted_mm: np.ndarray
    true_mm: np.ndarray
    predicted_px: np.ndarray
    true_px: np.ndarray
    spread_mm: np.ndarray
    keys: list[str]
    rows: np.ndarray
    names: list[Names]
    mean_pose_mm: np.ndarray
    pictures: list[Picture]
    protocol: dict[str, str | float | int | bool | list]


def score(evaluated: Evaluated) -> dict[str, Any]:
    """All figures, ready for JSON: `FIGURES`, the same of the mean pose, per joint, per action, and the protocol.

    Errors in mm; `pck_150` and `auc` from 0 to 1. Every mean over joints has all 17 in it, the root with its 0 too.
    `calibration_error`, `calibration_ratio` and `calibration_rank_correlation` are those of
    `poselib.calibration.Calibration`, `calibration_table` the bins of its chart; null and empty without heat maps.

    Raises:
        InputError: nothing to score, or a prediction that is no number.
        ValueError: arrays that do not belong together.
    """
    _check(evaluated)
    true_mm = evaluated.true_mm
    actions = [names.action or "(none)" for names in evaluated.names]
    baseline_mm = np.broadcast_to(evaluated.mean_pose_mm, true_mm.shape)
    result: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "samples": len(true_mm),
        "synthetic": bool(evaluated.protocol.get("synthetic", False)),
        "code_version": code_version(),
    }
    result |= _figures(evaluated.predicted_mm, true_mm, actions)
    result |= {f"mean_pose_{key}": value for key, value in _figures(baseline_mm, true_mm, actions).items()}
    result["per_action_samples"] = {name: actions.count(name) for name in result["per_action"]}
    result |= _calibration_figures(calibration(evaluated))
    result["protocol"] = dict(evaluated.protocol)
    return result


def calibration(evaluated: Evaluated) -> Calibration | None:
    """Predicted spreads against true errors; None for a head without heat maps."""
    return calibrate_poses(evaluated.spread_mm, evaluated.predicted_mm, evaluated.true_mm)


def _calibration_figures(found: Calibration | None) -> dict[str, Any]:
    if found is None:
        names = ("calibration_error", "calibration_ratio", "calibration_rank_correlation")
        return dict.fromkeys(names) | {"calibration_table": []}
    bins = zip(found.predicted_mm.tolist(), found.observed_mm.tolist(), found.counts.tolist(), strict=True)
    return {
        "calibration_error": found.error,
        "calibration_ratio": found.ratio,
        "calibration_rank_correlation": found.rank_correlation,
        "calibration_table": [{"predicted_mm": p, "observed_mm": o, "joints": n} for p, o, n in bins],
    }


def _figures(predicted_mm: np.ndarray, true_mm: np.ndarray, actions: list[str]) -> dict[str, Any]:
    errors_mm = metrics.joint_errors_mm(predicted_mm, true_mm)
    return {
        "mpjpe_mm": metrics.mpjpe_mm(predicted_mm, true_mm),
        "mpjpe_action_mean_mm": metrics.action_mean_mm(errors_mm, actions),
        "pa_mpjpe_rigid_mm": metrics.pa_mpjpe_mm(predicted_mm, true_mm, "rigid"),
        "pa_mpjpe_similarity_mm": metrics.pa_mpjpe_mm(predicted_mm, true_mm, "similarity"),
        "median_mm": float(np.median(errors_mm)),
        "pck_150": metrics.pck(errors_mm),
        "auc": metrics.auc(errors_mm),
        "per_joint": dict(zip(H36M_JOINTS, errors_mm.mean(axis=0).tolist(), strict=True)),
        "per_action": metrics.mean_by_action(errors_mm, actions),
    }


def _check(evaluated: Evaluated) -> None:
    count, joints = len(evaluated.names), len(H36M_JOINTS)
    shapes = {"predicted_mm": (3,), "true_mm": (3,), "predicted_px": (2,), "true_px": (2,), "spread_mm": ()}
    for name, last in shapes.items():
        if getattr(evaluated, name).shape != (count, joints, *last):
            raise ValueError(f"{name} must be of shape {(count, joints, *last)}, not {getattr(evaluated, name).shape}")
    if not len(evaluated.keys) == len(evaluated.rows) == count:
        raise ValueError(f"{count} samples need as many keys and rows")
    if not evaluated.names:
        raise InputError("no sample with a 3D truth to score: choose a set or filter that has some")
    broken = np.flatnonzero(~np.isfinite(evaluated.predicted_mm).all(axis=(1, 2)))
    if len(broken):
        first = evaluated.names[broken[0]].picture
        raise InputError(
            f"{len(broken)} of {len(evaluated.names)} predictions are not finite, first that of {first}: "
            "the weights are broken, take those of an earlier checkpoint"
        )


def write_score(run_dir: Path, evaluated: Evaluated, name: str = "score") -> dict[str, Any]:
    """Score, and write `NAME.json` and what belongs to it into the run folder.

    `NAME.html`; `NAME.npz`, see `cluster.samples`; `NAME.jpg` where there are pictures; `NAME_calibration.png` where
    there are heat maps. Each file is replaced as a whole, the JSON last.

    Raises:
        InputError: nothing to score, or a prediction that is no number.
    """
    result = score(evaluated)
    run_dir.mkdir(parents=True, exist_ok=True)
    if evaluated.pictures:
        write_whole(run_dir / f"{name}.jpg", picture_sheet(evaluated.pictures))
    found = calibration(evaluated)
    chart = png(calibration_chart(found)) if found else b""
    if chart:
        write_whole(run_dir / f"{name}_calibration.png", chart)
    samples = encode_samples(_samples(evaluated))
    write_whole(run_dir / f"{name}.npz", samples)
    result["samples_sha256"] = digest(samples)
    page = render_page(run_dir.resolve().name, result, FIGURES, evaluated.pictures, chart)
    write_whole(run_dir / f"{name}.html", page.encode())
    write_json(run_dir / f"{name}.json", result)
    return result


def _samples(evaluated: Evaluated) -> Samples:
    names = evaluated.names
    errors_mm = metrics.joint_errors_mm(evaluated.predicted_mm, evaluated.true_mm).mean(axis=1)
    poses = {name: getattr(evaluated, name).astype(np.float32) for name in _POSES}
    return Samples(
        keys=np.array(evaluated.keys, dtype=str),
        rows=np.asarray(evaluated.rows, np.int64),
        subjects=np.array([one.subject for one in names], dtype=str),
        actions=np.array([one.action for one in names], dtype=str),
        cameras=np.array([one.camera for one in names], dtype=str),
        pictures=np.array([one.picture for one in names], dtype=str),
        frames=np.array([one.frame for one in names], np.int64),
        errors_mm=errors_mm.astype(np.float32),
        **poses,
    )


def print_score(result: dict[str, Any], console: Console) -> None:
    """Tables of a score: overall beside the mean pose, per action, per joint, and the protocol card."""
    if result["synthetic"]:
        console.print("[bold yellow]Synthetic people: these figures say nothing about Human3.6M.")
    overall = _table(f"{result['samples']} poses", "figure")
    for key, label in FIGURES.items():
        overall.add_row(label, format_figure(key, result[key]), format_figure(key, result[f"mean_pose_{key}"]))
    console.print(overall)
    if result["calibration_error"] is not None:
        console.print(calibration_line(result), highlight=False)
    for part, title in (("per_action", "action"), ("per_joint", "joint")):
        table = _table(f"MPJPE per {title}", title)
        for label, value in result[part].items():
            table.add_row(escape(label), f"{value:.1f} mm", f"{result[f'mean_pose_{part}'][label]:.1f} mm")
        console.print(table)
    card = Table(title="protocol", show_header=False)
    for label, value in {**result["protocol"], "code version": result["code_version"]}.items():
        card.add_row(escape(label), escape(plain(value)))
    console.print(card)


def calibration_line(result: dict[str, Any]) -> str:
    """What the predicted spreads are worth, in one line."""
    return (
        f"calibration error of the predicted spreads {result['calibration_error']:.2f} (0 is best), root-relative error"
        f" / joint's own spread {result['calibration_ratio']:.2f}, rank correlation"
        f" {result['calibration_rank_correlation']:.2f}"
    )


def print_comparison(
    result: dict[str, Any], other: dict[str, Any], place: str, different: list[str], console: Console
) -> None:
    """A score beside another one.

    Args:
        result: of `score`.
        other: the same of another evaluation.
        place: where that one comes from.
        different: what keeps the two protocols from being compared, see `cluster.protocol.differences`.
        console: where to.
    """
    if different:
        console.print("[bold yellow]Different protocols, this / other:[/] " + escape("; ".join(different)))
    table = Table("figure", title=escape(f"against {place}"))
    for title in ("this", "other", "difference"):
        table.add_column(title, justify="right")
    for key, label in FIGURES.items():
        if key in other:
            change = result[key] - other[key]
            cells = (format_figure(key, value) for value in (result[key], other[key], change))
            table.add_row(label, *cells, style="bold" if key == result["protocol"].get("headline") else "")
    console.print(table)


def format_figure(key: str, value: float) -> str:
    """A figure for people: one decimal of mm, or of a percentage."""
    return f"{amount(key, value)} {unit(key)}"


def _table(title: str, first: str) -> Table:
    table = Table(title=title)
    table.add_column(first)
    table.add_column("model", justify="right", style="bold")
    table.add_column("mean pose", justify="right", style="dim")
    return table
