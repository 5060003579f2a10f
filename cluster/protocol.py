"""What is scored and how: presets as they are published, the card that says it, and when two cards compare."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.settings import Run
from cluster.settings_commands import EvaluateSettings
from cluster.settings_data import SPLITS, Part
from cluster.tracking.files import read_json
from cluster.weights import SavedModel
from poselib.errors import InputError
from shards.loader import Source


@dataclass(frozen=True)
class Preset:
    """A published way to score on Human3.6M.

    Attributes:
        subjects: by part.
        every: each n-th frame of the shard set.
        headline: the figure it speaks of, a key of `score.json`.
        splits: the splits whose training it is meant for.
    """

    subjects: dict[Part, tuple[str, ...]]
    every: int
    headline: str
    splits: tuple[str, ...]


PRESETS: Final[dict[str, Preset]] = {
    "eth": Preset({"val": ("S8",), "test": ("S9", "S11")}, 1, "mpjpe_mm", ("eth", "trainval")),
    "protocol1": Preset({"test": ("S11",)}, 64, "pa_mpjpe_rigid_mm", ("protocol1",)),
    "protocol2": Preset({"test": ("S9", "S11")}, 64, "mpjpe_mm", ("protocol2",)),
}
"""`eth` scores every sample that the set holds, as its leaderboard does. The other two are numbered as in Moon et al.,
"Camera Distance-aware Top-down Approach for 3D Multi-person Pose Estimation", 2019, which aligns without scale."""

MEASURED: Final = (
    *("synthetic", "data", "part", "subjects", "every", "box", "lens", "root depth", "flip test", "PA"),
    *("faults handled", "shard set"),
)
"""Keys of a protocol card that two scores must share to be compared; the others tell of the model."""


def by_preset(run: Run, settings: EvaluateSettings) -> Run:
    """The run with the subjects and frames of the settings' protocol.

    Raises:
        InputError: the protocol has no such part, or the run has learned from those whom it scores on.
    """
    if settings.protocol == "run":
        return run
    part, preset = settings.part, PRESETS[settings.protocol]
    subjects = preset.subjects.get(part, ())
    if not subjects:
        raise InputError(f"protocol {settings.protocol} has no part {part}, only {', '.join(preset.subjects)}")
    seen = {*run.data.subjects("train"), *(run.data.subjects("val") if part == "test" else ())}
    if known := [name for name in subjects if name in seen]:
        raise InputError(
            f"protocol {settings.protocol} scores {part} on {', '.join(subjects)}, but this run was trained or selected"
            f" on {', '.join(known)}; train one with --data.split {preset.splits[0]}"
        )
    try:
        if part == "val":
            data = replace(run.data, val_subjects=subjects, every_val=preset.every)
        else:
            data = replace(run.data, test_subjects=subjects, every_test=preset.every)
    except ValueError as error:
        raise InputError(f"protocol {settings.protocol}, part {part}: {error}") from error
    return replace(run, data=data)


def check_frames(settings: EvaluateSettings, source: Source) -> None:
    """Refuse a protocol whose frames the shard set does not hold: it would score another subset in silence.

    Raises:
        InputError: the message says what the set holds, and what would be right.
    """
    every = PRESETS[settings.protocol].every if settings.protocol != "run" else 1
    steps = _stored_steps(source)
    if every > 1 and steps and all(every % step for step in steps):
        raise InputError(
            f"protocol {settings.protocol} scores one frame in {every}, but {source.shards.folder} holds"
            f" {_stored_frames(source)} only; build a set with --every_test {every}"
        )


def _stored_steps(source: Source) -> list[int]:
    """Of which steps a set of Human3.6M keeps the frames; empty where its manifest does not say."""
    kept = source.shards.manifest.settings
    return [step for step in (kept.get("every"), kept.get("every_test")) if step]


def _stored_frames(source: Source) -> str:
    steps = _stored_steps(source)
    return "all frames" if 1 in steps else " and ".join(f"one in {step}" for step in steps)


def selected_on(run: Run, settings: EvaluateSettings, saved: SavedModel) -> str:
    """What these weights were chosen by: the best validation of the run as it was trained, or nothing."""
    if settings.weights == "last" or math.isnan(saved.val_mpjpe_mm) or not run.data.subjects("val"):
        return "nothing, the last epoch"
    return f"MPJPE, mean of all poses of {' '.join(run.data.subjects('val'))}, one frame in {run.data.every_val}"


def other_training(run: Run, settings: EvaluateSettings) -> str:
    """A line where the run was trained on others than the protocol's training subjects; else empty."""
    if settings.protocol == "run":
        return ""
    meant = [SPLITS[split]["train"] for split in PRESETS[settings.protocol].splits]
    trained = run.data.subjects("train")
    if any(set(trained) == set(subjects) for subjects in meant):
        return ""
    own = " or ".join(" ".join(subjects) for subjects in meant)
    return f"trained on {' '.join(trained)}, {settings.protocol} on {own}: not comparable with its published figures"


def protocol_card(
    run: Run, source: Source, settings: EvaluateSettings, saved: SavedModel, selection: str
) -> dict[str, Any]:
    """What a score was measured by (`MEASURED`), and what it was that was measured; `selection` is `selected_on`'s."""
    manifest = source.shards.manifest
    preset = PRESETS.get(settings.protocol)
    return {
        "synthetic": manifest.synthetic,
        "data": "synthetic studio, not Human3.6M" if manifest.synthetic else "Human3.6M",
        "protocol": settings.protocol,
        "headline": preset.headline if preset else "mpjpe_mm",
        "split": run.data.split,
        "trained on": list(run.data.subjects("train")),
        "part": settings.part,
        "subjects": _subjects(source),
        "every": run.data.every_val if settings.part == "val" else run.data.every_test,
        "stored frames": _stored_frames(source),
        "box": manifest.box,
        "aspect": run.crop.aspect,
        "crop": f"{run.model.crop_width}x{run.model.crop_height}",
        "lens": manifest.lens,
        "root depth": "ground truth",
        "depth range mm": run.model.depth_range_mm,
        "z scaled with zoom": run.crop.z_scaled_with_zoom,
        "cell origin": run.model.cell_origin,
        "heat maps read by": run.model.inference if run.model.head != "regression" else "no heat maps",
        "precision": run.engine.precision,
        "flip test": settings.flip_test,
        "PA": "rigid without scale, and similarity with scale",
        "averaging": "over all joints of all poses, and over the actions' means",
        "model": f"{settings.weights}, step {saved.step}",
        "selected on": selection,
        "faults handled": list(manifest.known_faults),
        "shard set": manifest.set_hash,
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What keeps two protocol cards from being compared: `key: of one / of other`; empty where they agree."""
    return [
        f"{key}: {_text(one.get(key))} / {_text(other.get(key))}" for key in MEASURED if one.get(key) != other.get(key)
    ]


def read_card(place: Path, name: str = "score") -> dict[str, Any]:
    """A score card: the file itself, or `NAME.json` of a run's folder.

    Raises:
        InputError: there is none, or it is no score card.
    """
    path = place / f"{name}.json" if place.is_dir() else place
    card = read_json(path)
    if not isinstance(card.get("protocol"), dict) or not isinstance(card.get("mpjpe_mm"), float):
        found = "is no score card" if path.is_file() else "does not exist"
        raise InputError(f"{path} {found}; `pose eval RUN` writes one, with the same options as this one")
    return card


def check_comparable(card: dict[str, Any], other: dict[str, Any], place: Path) -> None:
    """Refuse to lay scores of different protocols side by side.

    Raises:
        InputError: they differ in what must be shared; the message names it.
    """
    if different := differences(card, other):
        raise InputError(
            f"{place} was scored by another protocol ({'; '.join(different)}); --across_protocols true compares all the"
            " same"
        )


def _subjects(source: Source) -> list[str]:
    """The subjects that a source's samples are of."""
    codes = np.unique(source.shards.samples["subject"][source.rows])
    return [source.shards.manifest.subjects[code] for code in codes]


def _text(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
