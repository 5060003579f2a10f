"""`pose export`: a trained run as one file for other programs, by torch's own exporters, checked on the spot.

The file takes `pictures`, uint8 `b h w 3`: RGB crops of the model's size, any number of them; normalisation is inside.
It gives `joints_px` `b 17 2`, px of the crop, and `depth_mm` `b 17`, mm from the pelvis along the camera's axis.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.console import Console
from torch import Tensor, nn

from cluster.predict.settings import ExportSettings
from cluster.predict.trained import find_model
from cluster.weights import SavedModel, load_model
from poselib.errors import InputError
from poselib.model.network import PoseNetwork
from poselib.model.pyramid import PooledBatchNorm2d
from poselib.skeleton import H36M_JOINTS, PARENTS
from poselib.volume import to_crop_px
from shards.atomic import written_whole
from shards.normalise import normalise

Joints = tuple[np.ndarray, np.ndarray]
_CHECKED_BATCHES: Final = (1, 3)
_OPSET: Final = 20


class Exported(nn.Module):
    """What the file computes.

    Args:
        network: in evaluation mode; it is changed.
    """

    def __init__(self, network: PoseNetwork) -> None:
        super().__init__()
        for module in network.modules():
            if isinstance(module, PooledBatchNorm2d):
                # In evaluation both are the same, and the plain one does not ask how large the batch is.
                module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
        self.network = network

    def forward(self, pictures: UInt8[Tensor, "b h w 3"]) -> tuple[Float[Tensor, "b 17 2"], Float[Tensor, "b 17"]]:
        """Crops to px of the crop and mm from the pelvis."""
        uvz = self.network(normalise(pictures))
        model = self.network.settings
        return to_crop_px(uvz, model), uvz[..., 2] * model.depth_range_mm


def export_run(settings: ExportSettings) -> None:
    """`pose export`: write the file and print how far it is from the checkpoint.

    Raises:
        InputError: no such run, a package is missing, or the file's joints are further off than the tolerance; nothing
            is written then.
    """
    console = Console()
    path, trained = find_model(settings.run, settings.weights)
    saved = load_model(path, torch.device("cpu"))
    out = settings.out or path.with_name(f"model.{settings.format}")
    if settings.format == "onnx":
        _need_onnx()
    with console.status(f"{settings.format} of {path}"):
        difference = export(saved, out, settings.format, settings.tolerance_mm, {"aspect": trained.crop.aspect})
    console.print(
        f"largest difference to the checkpoint, batches of {' and '.join(map(str, _CHECKED_BATCHES))}:"
        f" {difference:.2g} mm, the crop taken to be as wide as the depth range",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB; docs/predict.md says what goes in and out", soft_wrap=True
    )


def export(
    saved: SavedModel, out: Path, file_format: str, tolerance_mm: float = 0.1, extra: dict[str, Any] | None = None
) -> float:
    """Write a model's file if it says what the model says.

    Args:
        saved: the model, on the CPU.
        out: file that is written, whole or not at all.
        file_format: `onnx` or `pt2`.
        tolerance_mm: largest difference.
        extra: more metadata.

    Returns:
        The largest difference found, mm: u and v times the depth range too.

    Raises:
        InputError: the difference is larger than that.
    """
    network = PoseNetwork(replace(saved.network.settings, soft_argmax="reference")).eval()
    network.load_state_dict(saved.network.state_dict())
    module = Exported(network).eval()
    metadata = describe(saved) | (extra or {})
    with written_whole(out) as stream:
        beside = Path(stream.name)
        with _quiet():
            answer = _FORMATS[file_format](module, beside, metadata)
        difference = _difference(saved, answer)
        if not difference <= tolerance_mm:
            raise InputError(
                f"{out}: is {difference:.3g} mm off the checkpoint, more than {tolerance_mm:g}; not written"
            )
    return difference


def describe(saved: SavedModel) -> dict[str, Any]:
    """What a file says of itself."""
    model = saved.network.settings
    return {
        "format": "posecluster-export-1",
        "input": "pictures: uint8 b h w 3, RGB crops",
        "output": "joints_px: b 17 2, px of the crop; depth_mm: b 17, mm from the pelvis along the camera's axis",
        "crop_width": model.crop_width,
        "crop_height": model.crop_height,
        "depth_range_mm": model.depth_range_mm,
        "joints": list(H36M_JOINTS),
        "parents": list(PARENTS),
        "step": saved.step,
    }


def _write_onnx(module: Exported, path: Path, metadata: dict[str, Any]) -> Callable[[np.ndarray], Joints]:
    """Through torch's exporter; read back by onnxruntime."""
    import onnxruntime

    program = torch.onnx.export(
        module,
        (_pictures(module.network, 2),),
        input_names=["pictures"],
        output_names=["joints_px", "depth_mm"],
        dynamic_shapes={"pictures": {0: torch.export.Dim("batch", min=1, max=65536)}},
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update({key: json.dumps(value) for key, value in metadata.items()})
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(pictures: np.ndarray) -> Joints:
        joints_px, depth_mm = session.run(None, {"pictures": pictures})
        return joints_px, depth_mm

    return answer


def _write_pt2(module: Exported, path: Path, metadata: dict[str, Any]) -> Callable[[np.ndarray], Joints]:
    """torch.export's own file; read back by torch."""
    program = torch.export.export(
        module,
        (_pictures(module.network, 2),),
        dynamic_shapes={"pictures": {0: torch.export.Dim("batch", min=1, max=65536)}},
    )
    with path.open("wb") as stream:
        torch.export.save(program, stream, extra_files={"posecluster.json": json.dumps(metadata)})
    with path.open("rb") as written:
        loaded = torch.export.load(written).module()

    def answer(pictures: np.ndarray) -> Joints:
        with torch.no_grad():
            joints_px, depth_mm = loaded(torch.from_numpy(pictures))
        return joints_px.numpy(), depth_mm.numpy()

    return answer


_FORMATS: Final = {"onnx": _write_onnx, "pt2": _write_pt2}


def _difference(saved: SavedModel, answer: Callable[[np.ndarray], Joints]) -> float:
    """The largest difference of any coordinate over some batches, mm."""
    model, worst = saved.network.settings, 0.0
    per_px = model.depth_range_mm / np.array([model.crop_width, model.crop_height])
    for batch in _CHECKED_BATCHES:
        pictures = _pictures(saved.network, batch)
        with torch.no_grad():
            uvz = saved.network(normalise(pictures))
        joints_px, depth_mm = answer(pictures.numpy())
        across = np.abs(joints_px - to_crop_px(uvz, model).numpy()) * per_px
        along = np.abs(depth_mm - uvz[..., 2].numpy() * model.depth_range_mm)
        # Of a NaN, max() would keep the other number.
        worst = float(np.max([worst, across.max(), along.max()]))
    return worst


def _pictures(network: PoseNetwork, batch: int) -> UInt8[Tensor, "b h w 3"]:
    """Pictures with something in them: smooth patches and noise."""
    model, random = network.settings, torch.Generator().manual_seed(batch)
    patches = 255 * torch.rand(batch, 3, 6, 6, generator=random)
    smooth = nn.functional.interpolate(patches, (model.crop_height, model.crop_width), mode="bicubic")
    noisy = smooth + 20 * torch.randn(smooth.shape, generator=random)
    return noisy.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"format onnx needs the package {error.name}: pip install -c constraints.txt 'posecluster[export]'; or take"
            " --format pt2"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' progress and their advice to themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
