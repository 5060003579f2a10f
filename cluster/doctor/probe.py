"""One library, tried in a process of its own: `python -m cluster.doctor.probe NAME` prints one line of JSON.

A library that crashes or hangs, as they do beside a wrong driver, takes only this process with it.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

MARK: Final = "posecluster-probe "
"""Before the line of JSON; libraries print as they like."""


def torch_facts() -> dict[str, Any]:
    """torch, its CUDA and NCCL, and every GPU, each of which has to add two numbers."""
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        ones = torch.ones(1024, device=torch.device("cuda", index))
        if float((ones + ones).sum()) != 2048.0:
            raise ArithmeticError(f"GPU {index} adds wrongly")
        properties = torch.cuda.get_device_properties(index)
        gpus.append(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else ""
    return {"torch": torch.__version__, "cuda": torch.version.cuda or "", "nccl": nccl, "gpus": gpus}


def dali_facts() -> dict[str, Any]:
    """DALI decodes a JPEG in the project's own graph, on the CPU and on each kind of device that is there."""
    from nvidia.dali import __version__

    facts = {"dali": __version__, "cpu_error": _decode_error("cpu")}
    if Path("/dev/nvidia0").exists():
        facts["gpu_error"] = _decode_error("gpu")
    return facts


def deepspeed_facts() -> dict[str, Any]:
    """DeepSpeed can be imported."""
    import torch

    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    importlib.import_module("cluster.engine.state")  # the one that imports it at the top
    return {"deepspeed": version("deepspeed")}


def _decode_error(device: Any) -> float:
    """Mean difference between DALI's picture and OpenCV's, grey levels."""
    import cv2
    import numpy as np

    from shards.pipeline import build_pipeline

    rows, columns = np.mgrid[0:64, 0:64].astype(np.float32)
    picture = np.stack([rows * 3, columns * 3, 128 + rows - columns], axis=-1).astype(np.uint8)
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    matrices = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    with build_pipeline(lambda: ([encoded], matrices, None), 1, 64, 64, device, 0, 1, 1) as graph:
        crops = graph.run()
        decoded = np.asarray(crops.as_cpu().as_array() if device == "gpu" else crops)[0]
    true = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert true is not None
    true = true[..., ::-1]
    return float(np.abs(decoded.astype(np.float32) - true).mean())


PROBES: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "torch": torch_facts,
    "DALI": dali_facts,
    "DeepSpeed": deepspeed_facts,
}


if __name__ == "__main__":
    print(MARK + json.dumps(PROBES[sys.argv[1]]()))
