"""What MLflow shows above a run: in words what it is, the score, and the protocol card, as Markdown."""

from collections.abc import Mapping
from typing import Any, Final

_SHOWN: Final = {
    "mpjpe_mm": ("MPJPE", 1.0, "mm"),
    "mpjpe_action_mean_mm": ("MPJPE, mean of the actions' means", 1.0, "mm"),
    "pa_mpjpe_rigid_mm": ("PA-MPJPE, rigid", 1.0, "mm"),
    "pa_mpjpe_similarity_mm": ("PA-MPJPE, with scale", 1.0, "mm"),
    "pck_150": ("3D PCK at 150 mm", 100.0, "%"),
    "auc": ("AUC, 0 to 150 mm", 100.0, "%"),
}


def describe_training(settings: Mapping[str, Any], synthetic: bool) -> str:
    """A run that has no score yet.

    Args:
        settings: the run's, flat.
        synthetic: its shards show no real people.
    """
    rows = {
        "backbone": settings["model.backbone"],
        "pyramid bins": settings["model.ppm_bins"],
        "crop": f"{settings['model.crop_width']}x{settings['model.crop_height']}",
        "split": settings["data.split"],
        "aspect": settings["crop.aspect"],
        "global batch": settings["batch.global"],
        "epochs": settings["epochs"],
        "seed": settings["seed"],
    }
    lines = [f"Trained on split **{settings['data.split']}**; not scored yet: `pose eval` brings the score.", ""]
    return "\n".join(_note(synthetic) + lines + _table("training", "", rows))


def describe_score(score: Mapping[str, Any]) -> str:
    """A run's score and the protocol that it was measured by."""
    figures = {
        label: f"**{factor * score[key]:.1f} {unit}** | {factor * score[f'mean_pose_{key}']:.1f} {unit}"
        for key, (label, factor, unit) in _SHOWN.items()
    }
    head = f"{score['samples']} poses"
    card = {**score["protocol"], "code version": score["code_version"]}
    lines = ["", f"| {head} | this model | mean pose |", "|---|---:|---:|"]
    lines += [f"| {label} | {text} |" for label, text in figures.items()]
    return "\n".join(_note(score["synthetic"]) + lines + ["", *_table("protocol", "", card)])


def _note(synthetic: bool) -> list[str]:
    return ["*Synthetic people: these figures say nothing about Human3.6M.*", ""] if synthetic else []


def _table(left: str, right: str, rows: Mapping[str, Any]) -> list[str]:
    return [f"| {left} | {right} |", "|---|---|", *(f"| {key} | {_plain(value)} |" for key, value in rows.items())]


def _plain(value: Any) -> str:
    """A value in a cell of a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
