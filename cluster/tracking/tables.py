"""A score's figures per joint and per action as the files that MLflow shows as tables."""

from pathlib import Path
from typing import Any, Final

from cluster.tracking.files import write_json

FOLDER: Final = "tables"


def write_table(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    """Replace a table: pandas' `split` orientation, which MLflow's `load_table` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"columns": columns, "data": rows})


def write_score_tables(run_dir: Path, name: str, score: dict[str, Any]) -> list[str]:
    """The tables of a score card; their places in the run folder: `tables/score_per_joint.json`, ..."""
    counts = score["per_action_samples"]
    parts: dict[str, tuple[list[str], list[list[Any]]]] = {
        "per_joint": (
            ["joint", "mpjpe_mm", "mean_pose_mpjpe_mm"],
            [[key, round(mm, 2), _of(score, "joint", key)] for key, mm in score["per_joint"].items()],
        ),
        "per_action": (
            ["action", "samples", "mpjpe_mm", "mean_pose_mpjpe_mm"],
            [[key, counts[key], round(mm, 2), _of(score, "action", key)] for key, mm in score["per_action"].items()],
        ),
    }
    places = []
    for part, (columns, rows) in parts.items():
        places.append(f"{FOLDER}/{name}_{part}.json")
        write_table(run_dir / places[-1], columns, rows)
    return places


def _of(score: dict[str, Any], part: str, key: str) -> float:
    return round(score[f"mean_pose_per_{part}"][key], 2)
