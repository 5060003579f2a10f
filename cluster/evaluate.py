"""Weights and shards to a score card."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console

from cluster.config import load
from cluster.data import evaluation_source
from cluster.engine.engine import check_precision, choose_device
from cluster.protocol import (
    by_preset,
    check_comparable,
    check_frames,
    differences,
    other_training,
    protocol_card,
    read_card,
    selected_on,
)
from cluster.samples import leaderboard_csv
from cluster.scorecard import Evaluated, Picture, print_comparison, print_score, write_score
from cluster.settings import Run
from cluster.settings_commands import EvaluateSettings
from cluster.tracking.description import describe_score
from cluster.tracking.handle import start_delivery
from cluster.tracking.journal import Journal
from cluster.tracking.tables import write_score_tables
from cluster.weights import BEST, LAST, SavedModel, load_model
from poselib.calibration import deviation_to_mm, joint_spread_mm
from poselib.camera import apply_affine, invert_affine
from poselib.errors import InputError
from poselib.metrics import joint_errors_mm, root_relative
from poselib.model.network import PoseNetwork
from poselib.model.spread import answer
from poselib.volume import decode, to_crop_px
from shards.atomic import write_whole
from shards.loader import Batch, Source, load_batches
from shards.order import Draws
from shards.sample import Names, unpack

_PICTURES: Final = 12


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says of a source's samples.

    Attributes:
        places: int64 `n`, which of the source's samples.
        predicted_mm: `n 17 3`, root-relative camera frame.
        true_mm: the same, of the truth.
        predicted_px: `n 17 2`, px of the stored picture.
        true_px: the same, of the truth.
        spread_mm: `n 17`, of the heat maps; NaN where they were not measured.
    """

    places: np.ndarray
    predicted_mm: np.ndarray
    true_mm: np.ndarray
    predicted_px: np.ndarray
    true_px: np.ndarray
    spread_mm: np.ndarray


def evaluate_run(settings: EvaluateSettings) -> None:
    """`pose eval`: score a run, print the card, leave it in the run's folder and in MLflow.

    Raises:
        InputError: no run, no such samples, frames that the set does not hold, or a card to compare with that is of
            another protocol.
    """
    trained = _load_run(settings)
    run = by_preset(trained, settings)
    device = choose_device(settings.device)
    check_precision(run.engine.precision, device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    saved = load_model(settings.run / (BEST if settings.weights == "best" else LAST), device)
    source = evaluation_source(run, settings.part, settings.h36m)
    check_frames(settings, source)
    card = protocol_card(run, source, settings, saved, selected_on(trained, settings, saved))
    name = "score" + _variant(settings, source)
    other = read_card(settings.against, name) if settings.against else None
    if other and settings.against and not settings.across_protocols:
        check_comparable(card, other["protocol"], settings.against)
    console = Console()
    with console.status(f"{len(source.rows)} samples of {source.shards.folder}"):
        evaluated = evaluate(run, saved, source, settings, card, device)
    score = write_score(settings.run, evaluated, name)
    print_score(score, console)
    if other:
        print_comparison(score, other, str(settings.against), differences(card, other["protocol"]), console)

    def say(line: str) -> None:
        if line:
            console.print(line, soft_wrap=True, markup=False, highlight=False)

    say(other_training(run, settings))
    if settings.leaderboard:
        table = settings.run / f"{name}.csv"
        write_whole(table, leaderboard_csv(evaluated.predicted_mm))
        say(f"leaderboard: {table}")
    say(_track(run, settings, source, score, saved.step) if run.tracking.enabled else "")
    say(f"score card: {settings.run / f'{name}.html'}; next: pose ui --runs_dir {run.runs_dir}")


def _load_run(settings: EvaluateSettings) -> Run:
    """The run as it was trained, in the folder where it lies now."""
    run = load(Run, settings.run / "run.yaml") if (settings.run / "run.yaml").is_file() else None
    if run is None:
        raise InputError(f"{settings.run} is no run: it holds no run.yaml")
    # The folder may have been moved since.
    run = replace(run, name=settings.run.resolve().name, runs_dir=settings.run.resolve().parent)
    return replace(run, loader=replace(run.loader, damaged="error"))  # scores of fewer samples could not be compared


def evaluate(
    run: Run, saved: SavedModel, source: Source, settings: EvaluateSettings, card: dict[str, Any], device: torch.device
) -> Evaluated:
    """Everything that a score card is made of, the protocol `card` included."""
    batches = evaluation_batches(run, source, settings.batch, device, torch.get_num_threads())
    found = predict(saved.network, batches, source, run, settings.flip_test, spread=True)
    rows = source.rows[found.places]
    labels = [source.shards.read_names(int(row)) for row in rows]
    names = [label[1] for label in labels]
    return Evaluated(
        predicted_mm=found.predicted_mm,
        true_mm=found.true_mm,
        predicted_px=found.predicted_px,
        true_px=found.true_px,
        spread_mm=found.spread_mm,
        keys=[label[0] for label in labels],
        rows=rows,
        names=names,
        mean_pose_mm=saved.mean_pose_mm,
        pictures=_pictures(run, source, found, names, device),
        protocol=card,
    )


@torch.no_grad()
def predict(
    network: PoseNetwork,
    batches: Iterator[Batch],
    source: Source,
    run: Run,
    flip_test: bool = False,
    spread: bool = False,
) -> Predictions:
    """Poses of a source's samples in millimetres, given the true depth of the pelvis.

    With `spread`, the second moments of the heat maps too; they take the memory of a batch's logits.
    """
    was_training = network.training
    network.eval()
    parts, bf16 = [_none()], run.engine.precision == "bf16"
    for batch in batches:
        uvz, deviation = answer(network, batch.inputs, bf16=bf16, flip_test=flip_test, spread=spread)
        parts.append(_in_mm(uvz, deviation, batch, source, run))
    network.train(was_training)
    columns = [np.concatenate([getattr(part, entry.name) for part in parts]) for entry in fields(Predictions)]
    # A sample that stood in for a damaged one counts once.
    _, kept = np.unique(columns[0], return_index=True)
    return Predictions(*(column[kept] for column in columns))


def _in_mm(uvz: torch.Tensor, deviation: torch.Tensor, batch: Batch, source: Source, run: Run) -> Predictions:
    """A batch's answers beside the truth."""
    arrays = {name: array.astype(np.float64) for name, array in unpack(batch.plan.vectors).items()}
    answered, deviations = (values.float().cpu().numpy().astype(np.float64) for values in (uvz, deviation))
    stored_from_crop, depths = batch.plan.stored_from_crop.astype(np.float64), arrays["joints_mm"][:, 0, 2]
    distortion = arrays["distortion"] if source.shards.manifest.lens == "brown" else None
    joints_mm = decode(answered, stored_from_crop, depths, arrays["intrinsics"], distortion, run.model)
    spread_mm = joint_spread_mm(deviation_to_mm(deviations, stored_from_crop, depths, arrays["intrinsics"], run.model))
    return Predictions(
        batch.draws.sample,
        root_relative(joints_mm).astype(np.float32),
        root_relative(arrays["joints_mm"]).astype(np.float32),
        apply_affine(stored_from_crop, to_crop_px(answered, run.model)).astype(np.float32),
        arrays["joints_px"].astype(np.float32),
        spread_mm.astype(np.float32),
    )


def _none() -> Predictions:
    """Of no samples."""
    mm, px = np.empty((0, 17, 3), np.float32), np.empty((0, 17, 2), np.float32)
    return Predictions(np.empty(0, np.int64), mm, mm, px, px, np.empty((0, 17), np.float32))


def evaluation_batches(
    run: Run,
    source: Source,
    batch: int,
    device: torch.device,
    threads: int,
    rank: int = 0,
    world_size: int = 1,
    places: np.ndarray | None = None,
) -> Iterator[Batch]:
    """A rank's share of a source's samples (or of those at `places`), in order, without augmentation."""
    places = np.arange(len(source.rows)) if places is None else places
    pieces = [places[start : start + batch] for start in range(0, len(places), batch)][rank::world_size]
    if not pieces:
        return iter(())
    draws = (Draws(np.zeros_like(piece), np.zeros_like(piece), piece) for piece in pieces)
    return load_batches([source], draws, batch, run.model, run.crop, run.loader, device, threads=threads)


def _pictures(run: Run, source: Source, found: Predictions, names: list[Names], device: torch.device) -> list[Picture]:
    """A dozen samples evenly over the errors, from the best to the worst."""
    errors = joint_errors_mm(found.predicted_mm, found.true_mm).mean(1)
    chosen = np.argsort(errors)[np.linspace(0, len(errors) - 1, min(_PICTURES, len(errors))).astype(int)]
    (batch,) = evaluation_batches(run, source, len(chosen), device, 1, places=found.places[chosen])
    crop_from_stored = invert_affine(batch.plan.stored_from_crop.astype(np.float64))
    predicted_px, true_px = (
        apply_affine(crop_from_stored, px[chosen].astype(np.float64)) for px in (found.predicted_px, found.true_px)
    )
    return [
        Picture(
            crop=batch.pictures[row].cpu().numpy(),
            predicted_px=predicted_px[row],
            true_px=true_px[row],
            predicted_mm=found.predicted_mm[index],
            true_mm=found.true_mm[index],
            names=names[index],
        )
        for row, index in enumerate(chosen)
    ]


def _variant(settings: EvaluateSettings, source: Source) -> str:
    """What sets this score apart from the run's own: `_eth`, `_val`, `_last`, `_flip`, another set; mostly nothing."""
    words = [
        settings.protocol if settings.protocol != "run" else "",
        settings.part if settings.part != "test" else "",
        settings.weights if settings.weights != "best" else "",
        "flip" if settings.flip_test else "",
        source.shards.manifest.set_hash[:8] if settings.h36m else "",
    ]
    return "".join(f"_{word}" for word in words if word)


def _track(run: Run, settings: EvaluateSettings, source: Source, score: dict[str, Any], step: int) -> str:
    """Hand the card to the run's journal, and what is new there to MLflow; returns what MLflow did not get."""
    # The tracker keeps the first number of a (step, name): every variant has its own name.
    variant = _variant(settings, source)
    prefix = f"test{variant}" if settings.part == "test" else variant[1:]
    numbers = {f"{prefix}/{name}": value for name, value in score.items() if isinstance(value, float)}
    with Journal(run.folder) as journal:
        journal.metrics(step, numbers)
        endings = (".json", ".html", ".jpg", *(["_calibration.png"] if score["calibration_table"] else []))
        for ending in (*endings, *([".csv"] if settings.leaderboard else [])):
            journal.artifact(f"score{variant}{ending}")
        for table in write_score_tables(run.folder, f"score{variant}", score):
            journal.table(table)
        if not variant:
            journal.tags({"mlflow.note.content": describe_score(score)})
    return start_delivery(run.folder, run.tracking).finish()
