"""A run's model, and what of its training matters for using it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from cluster.config import construct
from cluster.predict.settings import Weights
from cluster.weights import BEST, LAST
from poselib.errors import InputError
from shards.loader_settings import CropSettings


@dataclass(frozen=True)
class Trained:
    """What prediction must know of a training beside the model; the rest of an old run's settings need not be valid.

    Attributes:
        crop: how crops were cut.
        bf16: whether it ran under autocast.
        box: what its shard set's boxes were, as its score card says; empty without one.
    """

    crop: CropSettings = field(default_factory=CropSettings)
    bf16: bool = False
    box: str = ""


def find_model(run: Path, weights: Weights) -> tuple[Path, Trained]:
    """The model's file, and how it was trained; a .safetensors file alone does not say the latter.

    Raises:
        InputError: it is no run.
    """
    if run.suffix == ".safetensors":
        return run, Trained()
    try:
        values = yaml.safe_load((run / "run.yaml").read_text())
        crop, engine = values.get("crop") or {}, values.get("engine") or {}
    except FileNotFoundError as error:
        raise InputError(f"{run} is no run: it holds no run.yaml; give a run's folder or its .safetensors") from error
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise InputError(f"{run / 'run.yaml'}: not valid YAML; its model.safetensors can be given instead") from error
    settings = construct(CropSettings, yaml.safe_dump(crop), str(run / "run.yaml"))
    path = run / (BEST if weights == "best" else LAST)
    return path, Trained(settings, engine.get("precision") == "bf16", _box_kind(run / "score.json"))


def _box_kind(card: Path) -> str:
    """What a score card says of the shard set's boxes; nothing where it cannot be read: it only serves a hint."""
    try:
        return str(json.loads(card.read_text())["protocol"]["box"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
