"""What pasted objects cost on the CPU: time per picture of the picture graph without them, and with the report's.

    none      decode and one warp
    report    objects on 75 % of the crops, 1 to 8 of them, each of size 0.2 to 1
    most      8 objects on every crop
    full      the report's objects, each blended over the whole crop in floating point: what the graph avoids

CPU time is that of the process with all its threads, so a busy machine disturbs it less than the clock. The forms take
turns over some rounds, and the table shows medians. Stored crops of 384 px become crops of 256 px; objects are
ellipses of 40 to 200 px, as VOC2012's are at half size.

    python benchmarks/objects.py [--rounds 7] [--batches 20]
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import count, islice
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from cluster.bench.about import about
from poselib.settings import ModelSettings
from shards.augment import plan
from shards.loader_settings import PRESETS, AugmentSettings, CropSettings
from shards.occlude import Bank, Layers, layers, make_bank, most_occluders
from shards.order import Draws
from shards.pipeline import build_pipeline
from shards.sample import NUMERIC, pack

BATCH, STORED, CROP = 32, 384, 256
TARGET_MS = 1.0
FORMS = {
    "none": AugmentSettings(),
    "report": PRESETS["report"],
    "most": AugmentSettings(occluders=1.0, occluder_count=(8, 8)),
}


def bank() -> Bank:
    """Ellipses of noise."""
    rng = np.random.default_rng(0)
    pictures = []
    for height, width in rng.integers(40, 200, (300, 2)).tolist():
        alpha = np.zeros((height, width), np.uint8)
        cv2.ellipse(alpha, (width // 2, height // 2), (width // 2 - 2, height // 2 - 2), 0, 0, 360, 255, -1)
        pictures.append(np.dstack([rng.integers(0, 256, (height, width, 3), np.uint8), alpha]))
    return make_bank(pictures)


def jpeg() -> np.ndarray:
    """A stored crop with about the detail of a photograph."""
    coarse = np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(coarse, (STORED, STORED), interpolation=cv2.INTER_CUBIC))[1].ravel()


def batches(augment: AugmentSettings, objects: Bank) -> Callable[[], tuple[list[np.ndarray], np.ndarray, Layers]]:
    """The feed of the graph, planned beforehand."""
    arrays = {name: np.zeros(shape) for name, shape in NUMERIC.items()} | {"box": np.array([0, 0, STORED, STORED])}
    vectors, places = np.tile(pack(arrays), (BATCH, 1)), np.arange(BATCH)
    model, encoded = ModelSettings(crop_width=CROP, crop_height=CROP), [jpeg()] * BATCH

    def planned(turn: int) -> tuple[list[np.ndarray], np.ndarray, Layers]:
        draws = Draws(np.zeros_like(places), np.full_like(places, turn), places)
        made = plan(vectors, draws, [augment], CropSettings(), model, 0, objects)
        return encoded, made.stored_from_crop, layers(objects, made.occlusions)

    ready = [planned(turn) for turn in range(4)]
    order = count()
    return lambda: ready[next(order) % len(ready)]


def graph(augment: AugmentSettings, objects: Bank) -> Callable[[], Any]:
    """A running graph of one thread; what it returns makes a batch."""
    feed = batches(augment, objects)
    return build_pipeline(feed, BATCH, CROP, CROP, "cpu", 0, 1, 2, most_occluders([augment])).run


def blend_whole_crops(objects: Bank) -> Callable[[], Any]:
    """The report's objects over whole crops in floating point, without decoding."""
    feed = batches(FORMS["report"], objects)

    def run() -> None:
        _, _, pasted = feed()
        for pictures, maps in zip(pasted.pictures, pasted.object_from_crop, strict=True):
            crop = np.zeros((CROP, CROP, 3), np.float32)
            for picture, matrix in zip(pictures, maps[: len(pictures)], strict=True):
                flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
                layer = cv2.warpAffine(picture, matrix.astype(np.float64), (CROP, CROP), flags=flags)
                crop = crop * (1 - layer[..., 3:].astype(np.float32) / 255) + layer[..., :3]

    return run


def main() -> None:
    """Print JSON lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=20)
    arguments = parser.parse_args()
    print(json.dumps({"about": about()}), flush=True)
    cv2.setNumThreads(1)
    objects = bank()
    runs = {name: graph(augment, objects) for name, augment in FORMS.items()} | {"full": blend_whole_crops(objects)}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds + 1):
        for name, run in runs.items():
            began = time.process_time()
            for _ in islice(count(), arguments.batches):
                run()
            spent[name].append((time.process_time() - began) / arguments.batches / BATCH * 1e3)
    median = {name: statistics.median(values[1:]) for name, values in spent.items()}
    median["full"] += median["none"]
    table = Table("form", "CPU ms per picture", "of it objects", "target")
    for name, value in median.items():
        extra = value - median["none"]
        target = f"at most {TARGET_MS:g}: {'met' if extra <= TARGET_MS else 'missed'}" if name == "report" else ""
        print(json.dumps({"form": name, "cpu_ms": round(value, 3), "objects_ms": round(extra, 3), "target": target}))
        table.add_row(name, f"{value:.2f}", f"{extra:.2f}", target)
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
