"""`model.safetensors`: the weights of a run with everything that using them needs. Evaluation reads that alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cluster.config import construct, dump
from poselib.errors import InputError
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings
from shards.atomic import write_whole

BEST: Final = "model.safetensors"
LAST: Final = "last.safetensors"


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A network and what belongs to its weights.

    Attributes:
        network: in evaluation mode.
        step: optimiser steps it was trained for.
        val_mpjpe_mm: its validation score; NaN where it has none.
        mean_pose_mm: `17 3`, root-relative camera frame: the training data's mean, the baseline of every score.
    """

    network: PoseNetwork
    step: int
    val_mpjpe_mm: float
    mean_pose_mm: np.ndarray


def save_model(path: Path, saved: SavedModel) -> None:
    """Write weights, settings and baseline as one file, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in saved.network.state_dict().items()}
    metadata = {
        "format": "posecluster-model-1",
        "model": dump(saved.network.settings),
        "step": str(saved.step),
        "val_mpjpe_mm": repr(saved.val_mpjpe_mm),
        "mean_pose_mm": json.dumps(saved.mean_pose_mm.tolist()),
    }
    write_whole(path, save(tensors, metadata=metadata))


def load_model(path: Path, device: torch.device) -> SavedModel:
    """Read what `save_model` wrote.

    Raises:
        InputError: missing, damaged, or of another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; the run has not saved a model yet") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if metadata.get("format") != "posecluster-model-1":
        raise InputError(f"{path} was not written by this toolkit: it carries no settings")
    network = PoseNetwork(construct(ModelSettings, metadata["model"], str(path)))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path}: weights and settings disagree: {' '.join(str(error).split())[:200]}") from error
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return SavedModel(
        network.eval(),
        int(metadata["step"]),
        float(metadata["val_mpjpe_mm"]),
        np.array(json.loads(metadata["mean_pose_mm"])),
    )
