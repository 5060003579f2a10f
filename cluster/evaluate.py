"""Weights and shards to a score card."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console

from cluster.config import load
from cluster.data import evaluation_source
from cluster.engine.engine import check_precision, choose_device
from cluster.scorecard import Evaluated, Picture, print_score, write_score
from cluster.settings import Run
from cluster.settings_commands import EvaluateSettings
from cluster.tracking.handle import start_delivery
from cluster.tracking.journal import Journal
from cluster.weights import BEST, LAST, SavedModel, load_model
from poselib.errors import InputError
from poselib.metrics import joint_errors_mm, root_relative
from poselib.model.network import PoseNetwork
from poselib.volume import decode, flip_average, to_crop_px
from shards.loader import Batch, Source, load_batches
from shards.order import Draws
from shards.sample import unpack

_PICTURES: Final = 12


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says of a source's samples.

    Attributes:
        places: int64 `n`, which of the source's samples.
        predicted_mm: `n 17 3`, root-relative camera frame.
        true_mm: the same, of the truth.
    """

    places: np.ndarray
    predicted_mm: np.ndarray
    true_mm: np.ndarray


def evaluate_run(settings: EvaluateSettings) -> None:
    """`pose eval`: score a run, print the card, leave `score.json` and `score.html` in its folder and in MLflow."""
    run = load(Run, settings.run / "run.yaml") if (settings.run / "run.yaml").is_file() else None
    if run is None:
        raise InputError(f"{settings.run} is no run: it holds no run.yaml")
    # The folder may have been moved since.
    run = replace(run, name=settings.run.resolve().name, runs_dir=settings.run.resolve().parent)
    run = replace(run, loader=replace(run.loader, damaged="error"))  # scores of fewer samples could not be compared
    device = choose_device(settings.device)
    check_precision(run.engine.precision, device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    saved = load_model(settings.run / (BEST if settings.weights == "best" else LAST), device)
    source = evaluation_source(run, settings.part, settings.h36m)
    console = Console()
    with console.status(f"{len(source.rows)} samples of {source.shards.folder}"):
        evaluated = evaluate(run, saved, source, settings, device)
    name = "score" + _variant(settings, source)
    score = write_score(settings.run, evaluated, name)
    print_score(score, console)
    late = _track(run, settings, source, score, saved.step) if run.tracking.enabled else ""
    if late:
        console.print(late, soft_wrap=True)
    card = settings.run / f"{name}.html"
    console.print(f"score card: {card}; next: pose ui --runs_dir {run.runs_dir}", soft_wrap=True)


def evaluate(
    run: Run, saved: SavedModel, source: Source, settings: EvaluateSettings, device: torch.device
) -> Evaluated:
    """Everything that a score card is made of."""
    batches = evaluation_batches(run, source, settings.batch, device, torch.get_num_threads())
    found = predict(saved.network, batches, source, run, device, settings.flip_test)
    names = [source.shards.read(int(source.rows[place])).names for place in found.places]
    return Evaluated(
        predicted_mm=found.predicted_mm,
        true_mm=found.true_mm,
        names=names,
        mean_pose_mm=saved.mean_pose_mm,
        pictures=_pictures(run, saved.network, source, found, names, device),
        protocol=protocol_card(run, source, settings, saved),
    )


@torch.no_grad()
def predict(
    network: PoseNetwork,
    batches: Iterator[Batch],
    source: Source,
    run: Run,
    device: torch.device,
    flip_test: bool = False,
) -> Predictions:
    """Poses of a source's samples in millimetres, given the true depth of the pelvis."""
    was_training = network.training
    network.eval()
    places, predicted, true = [], [], []
    for batch in batches:
        with torch.autocast(device.type, torch.bfloat16, enabled=run.engine.precision == "bf16"):
            uvz = network(batch.inputs)
            if flip_test:
                uvz = flip_average(uvz, network(batch.inputs.flip(-1)))
        arrays = unpack(batch.plan.vectors)
        joints_mm = decode(
            uvz.float().cpu().numpy().astype(np.float64),
            batch.plan.stored_from_crop.astype(np.float64),
            arrays["joints_mm"][:, 0, 2].astype(np.float64),
            arrays["intrinsics"].astype(np.float64),
            arrays["distortion"].astype(np.float64) if source.shards.manifest.lens == "brown" else None,
            run.model,
        )
        places.append(batch.draws.sample)
        predicted.append(root_relative(joints_mm).astype(np.float32))
        true.append(root_relative(arrays["joints_mm"]))
    network.train(was_training)
    empty = np.empty((0, 17, 3), np.float32)
    each, kept = np.unique(np.concatenate([np.empty(0, np.int64), *places]), return_index=True)
    # A sample that stood in for a damaged one counts once.
    return Predictions(each, np.concatenate([empty, *predicted])[kept], np.concatenate([empty, *true])[kept])


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


def protocol_card(run: Run, source: Source, settings: EvaluateSettings, saved: SavedModel) -> dict[str, Any]:
    """What two scores must share to be compared."""
    manifest = source.shards.manifest
    return {
        "synthetic": manifest.synthetic,
        "data": "synthetic studio, not Human3.6M" if manifest.synthetic else "Human3.6M",
        "split": run.data.split,
        "part": settings.part,
        "subjects": _subjects(source),
        "every": run.data.every_val if settings.part == "val" else run.data.every_test,
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
        "model": f"{settings.weights}, step {saved.step}",
        "faults handled": list(manifest.known_faults),
        "shard set": manifest.set_hash,
    }


def _subjects(source: Source) -> list[str]:
    """The subjects that a source's samples are of."""
    codes = np.unique(source.shards.samples["subject"][source.rows])
    return [source.shards.manifest.subjects[code] for code in codes]


def _pictures(
    run: Run, network: PoseNetwork, source: Source, found: Predictions, names: list[Any], device: torch.device
) -> list[Picture]:
    """A dozen samples evenly over the errors, from the best to the worst."""
    errors = joint_errors_mm(found.predicted_mm, found.true_mm).mean(1)
    chosen = np.argsort(errors)[np.linspace(0, len(errors) - 1, min(_PICTURES, len(errors))).astype(int)]
    pictures = []
    batches = evaluation_batches(run, source, len(chosen), device, 1, places=found.places[chosen])
    for batch in batches:
        with torch.no_grad():
            uvz = network(batch.inputs).cpu().numpy()
        predicted_px = to_crop_px(uvz, run.model)
        true_px = to_crop_px(batch.plan.targets, run.model)
        for row, index in enumerate(chosen):
            pictures.append(
                Picture(
                    crop=batch.pictures[row].cpu().numpy(),
                    predicted_px=predicted_px[row],
                    true_px=true_px[row],
                    predicted_mm=found.predicted_mm[index],
                    true_mm=found.true_mm[index],
                    names=names[index],
                )
            )
    return pictures


def _variant(settings: EvaluateSettings, source: Source) -> str:
    """What sets this score apart from the run's own: `_val`, `_last`, `_flip`, another set; mostly nothing."""
    words = [
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
        for ending in ("json", "html", "jpg"):
            journal.artifact(f"score{variant}.{ending}")
    return start_delivery(run.folder, run.tracking).finish()
