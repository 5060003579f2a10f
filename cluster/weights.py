"""The weights that a run starts from, and those that it leaves behind.

`model.safetensors` holds the latter with everything that using them needs: evaluation and `init_from` read that alone.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cluster.config import construct, dump, flatten
from cluster.pretrained import find_weights, read_weights
from cluster.settings import Run
from cluster.settings_weights import NetworkPart
from poselib.errors import InputError
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings
from shards.atomic import write_whole

BEST: Final = "model.safetensors"
LAST: Final = "last.safetensors"
_PARTS: Final[dict[str, NetworkPart]] = {
    "backbone.": "backbone",
    "pyramid.": "pyramid",
    "decoder.upsampling.": "upsampling",
    "decoder.head.": "head",
    "regressor.": "head",
}
_CLASSIFIER: Final = ("fc.weight", "fc.bias")
_ATTENTION: Final = re.compile(r"layer4\.\d+\.conv2\.")
"""Where BoTNet-50 attends and ResNet-50 convolves."""
_COUNTER: Final = ".num_batches_tracked"
"""Old weight files lack BatchNorm's step counters; nothing here reads them."""


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


@dataclass(frozen=True, eq=False)
class Start:
    """What a network starts from.

    Attributes:
        tensors: of the network's state dict, those that do not start at random.
        lines: what the user is told.
        tags: which file it was, for the tracker.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)


def check_start(run: Run) -> None:
    """Refuse a run whose first weights are missing, damaged or of another network; they are downloaded here.

    Raises:
        InputError: one line that says what does not fit.
    """
    with torch.device("meta"):
        network = PoseNetwork(run.model)
    _find_start(run, network)


def start(network: PoseNetwork, run: Run) -> Start:
    """Fill a new network with what `weights` or `init_from` say; errors as in `check_start`."""
    found = _find_start(run, network)
    network.load_state_dict(found.tensors, strict=False)
    return Start({}, found.lines, found.tags)


def share_from_main(network: PoseNetwork) -> None:
    """Give every rank the weights and buffers of rank 0, which alone has read the files."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, 0)


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
    settings, metadata, tensors = _read(path)
    network = PoseNetwork(settings)
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


def load_model_step(path: Path) -> int:
    """How many optimiser steps a saved model was trained for; errors as in `load_model`."""
    return int(_read(path)[1]["step"])


def _read(path: Path) -> tuple[ModelSettings, dict[str, str], dict[str, torch.Tensor]]:
    """Settings, metadata and tensors of a saved model."""
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
    return construct(ModelSettings, metadata["model"], str(path)), metadata, tensors


def _find_start(run: Run, network: PoseNetwork) -> Start:
    """What the network starts from, checked against its names and shapes."""
    if run.init_from is not None:
        return _from_run(run, network)
    if run.weights == "none":
        return Start()
    path, digest = find_weights(run.weights, run.model.backbone, run.weights_sha256)
    own, found = network.backbone.state_dict(), read_weights(path)
    if any(name.startswith("backbone.") for name in found):
        ours = any(_part(name) in ("upsampling", "head") for name in found)
        hint = f"start from it with --init_from {path}" if ours else "only its backbone's tensors would be of use"
        raise InputError(f"{path} is a whole network, not a backbone; {hint}")
    missing, unexpected, shapes = _compare(own, found)
    unused = [name for name in unexpected if name in _CLASSIFIER]
    fresh: list[str] = []
    if run.model.backbone == "botnet50":
        fresh = [name for name in missing if _ATTENTION.match(name)]
        unused += [name for name in unexpected if _ATTENTION.match(name)]
    missing, unexpected = _without(missing, fresh), _without(unexpected, unused)
    if missing or unexpected or shapes:
        raise InputError(
            f"{path} is of another network than model.backbone {run.model.backbone} of model.width {run.model.width}:"
            f" {_faults(missing, unexpected, shapes)}"
        )
    tensors = {f"backbone.{name}": found[name] for name in own if name in found}
    told = f"the backbone starts from {path}, SHA-256 {digest[:12]}: {len(tensors)} tensors"
    told += f"; unused: {_some(unused)}" if unused else ""
    told += f"; at random: {_some(fresh)}" if fresh else ""
    return Start(tensors, (told,), _tags(path, digest))


def _from_run(run: Run, network: PoseNetwork) -> Start:
    """The weights of another run, but for the parts that start fresh."""
    assert run.init_from is not None
    if not run.init_from.exists():
        raise InputError(f"init_from {run.init_from} does not exist; give a run's folder or a .safetensors file")
    path = run.init_from if run.init_from.suffix == ".safetensors" else run.init_from / BEST
    settings, metadata, tensors = _read(path)
    own = {name: tensor for name, tensor in network.state_dict().items() if _part(name) not in run.init_fresh}
    found = {name: tensor for name, tensor in tensors.items() if _part(name) not in run.init_fresh}
    missing, unexpected, shapes = _compare(own, found)
    before = flatten(settings)
    differ = ", ".join(
        f"model.{key} {before[key]} -> {value}" for key, value in flatten(run.model).items() if before[key] != value
    )
    if missing or unexpected or shapes:
        wrong = {_part(name) for name in (*missing, *unexpected, *shapes)} | set(run.init_fresh)
        parts = ", ".join(part for part in dict.fromkeys(_PARTS.values()) if part in wrong)
        raise InputError(
            f"init_from {path} does not fit ({differ}): {_faults(missing, unexpected, shapes)}; to start these parts at"
            f" random: --init_fresh [{parts}]"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    told = f"starting from {path}, step {metadata['step']}, SHA-256 {digest[:12]}: {len(found)} tensors"
    told += f"; at random: {', '.join(run.init_fresh)}" if run.init_fresh else ""
    notes = (f"settings that differ from that run's: {differ}",) if differ else ()
    return Start(found, (told, *notes), _tags(path, digest))


def _compare(
    own: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]
) -> tuple[list[str], list[str], dict[str, str]]:
    """Names that are missing, names that are not expected, and what is to be said of tensors of another shape."""
    missing = [name for name in own if name not in found and not name.endswith(_COUNTER)]
    unexpected = sorted(name for name in found if name not in own)
    shapes = {
        name: f"{name} is {_shape(found[name])} there and {_shape(tensor)} here"
        for name, tensor in own.items()
        if name in found and found[name].shape != tensor.shape
    }
    return missing, unexpected, shapes


def _faults(missing: list[str], unexpected: list[str], shapes: dict[str, str]) -> str:
    """What `_compare` found, as one line."""
    texts = [f"missing {_some(missing)}"] * bool(missing) + [f"unexpected {_some(unexpected)}"] * bool(unexpected)
    return "; ".join(texts + [_some(list(shapes.values()))] * bool(shapes))


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _without(names: list[str], others: list[str]) -> list[str]:
    return [name for name in names if name not in others]


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def _part(name: str) -> NetworkPart | None:
    """Which part of the network a tensor belongs to."""
    return next((part for prefix, part in _PARTS.items() if name.startswith(prefix)), None)


def _tags(path: Path, digest: str) -> dict[str, str]:
    return {"posecluster.start": str(path), "posecluster.start_sha256": digest}
