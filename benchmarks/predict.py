"""Pictures per second of prediction against the bare model's, on the same machine at the same batch, in one run.

`model` is the network's own forward pass on crops that lie ready on the device. `api` is `Predictor.predict` on decoded
pictures: crops, network, spreads, root depths, poses. `files` is `pose predict` from JPEG files to `poses.json`, its
model loaded; `overlays` draws and writes the pictures too. All take turns over the same pictures; the rates are of
medians over rounds. Weights are random: they do not change the work.

    python benchmarks/predict.py [--pictures 32] [--batch 8] [--rounds 3] [--threads 1] [--device cuda]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from cluster.bench.about import about
from cluster.predict.command import predict_inputs
from cluster.predict.poses import Predictor
from cluster.predict.settings import PredictSettings
from cluster.weights import SavedModel
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings
from shards.normalise import normalise

TARGET = 0.85


def scene(number: int, side: int) -> np.ndarray:
    """A picture with the detail of a photograph, about."""
    rng = np.random.default_rng(number)
    smooth = cv2.resize(rng.integers(0, 255, (side // 40, side // 40, 3), np.uint8), (side, side))
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def forms(arguments: argparse.Namespace, folder: Path) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    settings = ModelSettings(arguments.backbone)
    device = torch.device(arguments.device)
    network = PoseNetwork(settings).eval().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    saved = SavedModel(network, 0, float("nan"), np.zeros((17, 3)))
    predictor = Predictor(saved, device, batch=arguments.batch)
    pictures = [scene(number, arguments.side) for number in range(arguments.pictures)]
    boxes = [np.array([[0.3, 0.2, 0.4, 0.6]]) * arguments.side for _ in pictures]
    (folder / "in").mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / "in" / f"{number:05d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    shape = (arguments.batch, settings.crop_height, settings.crop_width, 3)
    crops = torch.randint(0, 255, shape, dtype=torch.uint8, device=device)

    def model() -> None:
        with torch.inference_mode():
            for _ in range(0, arguments.pictures, arguments.batch):
                network(normalise(crops))
        if device.type == "cuda":
            torch.cuda.synchronize()

    def from_files(overlays: bool) -> Callable[[], object]:
        asked = PredictSettings(
            inputs=(str(folder / "in"),),
            run=folder,
            out=folder / f"out{overlays}",
            box=tuple(boxes[0][0]),
            overlays=overlays,
            batch=arguments.batch,
        )
        return lambda: predict_inputs(asked, predictor)

    return {
        "model": model,
        "api": lambda: predictor.predict(pictures, boxes),
        "files": from_files(False),
        "overlays": from_files(True),
    }


def main() -> None:
    """Print JSON lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--side", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    print(json.dumps({"about": about()}), flush=True)
    if arguments.pictures % arguments.batch:
        parser.error("--pictures must be a multiple of --batch, or the model's last batch would be another one")
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        measured = forms(arguments, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in measured}
        for turn in range(arguments.rounds + 1):
            for name, work in measured.items():
                began = time.perf_counter()
                work()
                if turn:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)
    rates = {name: arguments.pictures / statistics.median(values) for name, values in seconds.items()}
    table = Table("form", "pictures/s", "share of the model's", f"target {TARGET:.0%}")
    for name, rate in rates.items():
        share = rate / rates["model"]
        verdict = "-" if name == "model" else "met" if share >= TARGET else "missed"
        print(json.dumps({"form": name, "per_s": round(rate, 2), "share": round(share, 3), "verdict": verdict}))
        table.add_row(name, f"{rate:.2f}", f"{share:.1%}", verdict)
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
