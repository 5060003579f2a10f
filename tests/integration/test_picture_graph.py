"""The picture graph against an independent implementation of the same draws, objects included; its threads' end.

The independent implementation takes nothing from augmentation or graph but the draws' documented key and places: it
makes its own matrices, samples every pixel with its own bilinear interpolation in floating point, and blends there.
"""

import itertools
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from poselib.errors import InputError
from poselib.settings import ModelSettings
from shards import pipeline
from shards.loader import Batch, Source, load_batches, read
from shards.loader_settings import AugmentSettings, CropSettings, LoaderSettings
from shards.manifest import ShardSet
from shards.occlude import Bank, layers, open_bank
from shards.occluders import load_occluders
from shards.order import Draws

pytestmark = pytest.mark.integration

MODEL = ModelSettings(crop_width=96, crop_height=128)
SEED = 11
AUGMENT = AugmentSettings(
    flip=0.5,
    color=0.3,
    zoom=0.25,
    zoom_p=0.8,
    rotation_deg=30.0,
    rotation=0.7,
    occluders=0.8,
    occluder_count=(2, 8),
    occluder_size=(0.3, 1.6),
)


@pytest.fixture
def source(shard_sets) -> Source:
    shards = ShardSet.open(shard_sets["h36m"])
    return Source(shards, shards.select(), AUGMENT)


@pytest.fixture
def bank(shard_sets) -> Bank:
    return open_bank(shard_sets["voc"])


def draws(batches: int, size: int, stop: int) -> list[Draws]:
    places = np.arange(batches * size).reshape(batches, size)
    return [Draws(np.zeros_like(row), row // stop, row % stop) for row in places]


def load(
    source: Source, bank: Bank, aspect: str = "keep", device: str = "cpu", loader: str = "cpu", threads: int = 1
) -> list[Batch]:
    crop, settings = CropSettings(aspect=aspect, allow_border=True), LoaderSettings(device=loader, threads=threads)
    wanted = draws(3, 8, len(source.rows))
    return list(load_batches([source], wanted, 8, MODEL, crop, settings, torch.device(device), SEED, 1, bank))


def bilinear(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Samples `h w c` of a picture at continuous places `h w`; it is 0 beyond its edge."""
    padded = np.pad(picture.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    x = np.clip(x + 0.5, 0, padded.shape[1] - 1.001)
    y = np.clip(y + 0.5, 0, padded.shape[0] - 1.001)
    column, row = x.astype(int), y.astype(int)
    right, low = (x - column)[..., None], (y - row)[..., None]
    top = padded[row, column] * (1 - right) + padded[row, column + 1] * right
    bottom = padded[row + 1, column] * (1 - right) + padded[row + 1, column + 1] * right
    return top * (1 - low) + bottom * low


def independent(jpeg: np.ndarray, box: np.ndarray, place: tuple[int, int], aspect: str, objects: list) -> tuple:
    """The crop `h w 3` in floating point without its gain, and where objects cover it, `h w`."""
    turn, sample = place
    u = np.random.Generator(np.random.Philox(key=SEED, counter=[0, sample, turn, 0])).random(43)
    stored = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    width, height = MODEL.crop_width, MODEL.crop_height
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = (width - column if u[0] < AUGMENT.flip else column) - width / 2, row - height / 2
    angle = np.deg2rad((u[5] < AUGMENT.rotation) * AUGMENT.rotation_deg * (2 * u[6] - 1))
    zoom = 1 + (u[8] < AUGMENT.zoom_p) * AUGMENT.zoom * (2 * u[4] - 1)
    x, y = (x * np.cos(angle) + y * np.sin(angle)) / zoom, (y * np.cos(angle) - x * np.sin(angle)) / zoom
    per_x, per_y = box[2] / width, box[3] / height
    if aspect == "keep":
        per_x = per_y = max(per_x, per_y)
    crop = bilinear(stored, x * per_x + box[0] + box[2] / 2, y * per_y + box[1] + box[3] / 2)
    covered = np.zeros((height, width))
    fewest, most = AUGMENT.occluder_count
    count = fewest + int(u[10] * (most - fewest + 1)) if u[9] < AUGMENT.occluders else 0
    for which, size, at_x, at_y in u[11:].reshape(8, 4)[:count]:
        picture = objects[int(which * len(objects))].astype(np.float64)
        smallest, largest = AUGMENT.occluder_size
        scale = (smallest + size * (largest - smallest)) * min(width, height) / 256
        shown_width, shown_height = picture.shape[1] * scale, picture.shape[0] * scale
        picture[..., :3] *= picture[..., 3:] / 255
        halvings = min(3, max(0, int(np.floor(np.log2(1 / scale)))))
        small = [max(1, round(side / 2**halvings)) for side in picture.shape[1::-1]]
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        layer = bilinear(
            picture,
            (column - at_x * width + shown_width / 2) / shown_width * small[0],
            (row - at_y * height + shown_height / 2) / shown_height * small[1],
        )
        crop = crop * (1 - layer[..., 3:] / 255) + layer[..., :3]
        covered = np.maximum(covered, layer[..., 3] / 255)
    return crop, covered


@pytest.mark.parametrize("aspect", ["keep", "stretch"])
def test_the_cpu_graph_gives_an_independent_implementations_pictures(source, bank, shard_sets, aspect):
    objects, covered_px = load_occluders(shard_sets["voc"]), 0
    for batch in load(source, bank, aspect):
        jpegs, vectors = read([source], batch.draws)
        for row in range(8):
            place = int(batch.draws.turn[row]), int(batch.draws.sample[row])
            box = vectors[row, -12:-8].astype(np.float64)
            expected, covered = independent(jpegs[row], box, place, aspect, objects)
            difference = np.abs(batch.pictures[row].numpy() - expected)
            assert difference.mean() < 1.0
            assert np.quantile(difference, 0.99) <= 8
            # Where an opaque object lies nothing but its own interpolation counts.
            opaque = covered > 0.999
            assert difference[opaque].max(initial=0) < 2.5
            covered_px += opaque.sum()
    assert covered_px > 5000


@pytest.mark.parametrize("objects", [8, 0])
def test_the_gpu_graphs_operators_give_the_cpu_graphs_pictures(source, bank, objects):
    """Decoding, warping, blending and the conditions of the GPU's graph, run by DALI on the CPU."""
    expected = load(source if objects else Source(source.shards, source.rows, AugmentSettings()), bank)
    waiting = iter(expected)

    def feed():
        batch = next(waiting)
        jpegs, _ = read([source], batch.draws)
        return jpegs, batch.plan.stored_from_crop, layers(bank, batch.plan.occlusions)

    graph = pipeline._dali_graph(feed, MODEL.crop_width, MODEL.crop_height, objects, 0.65, on_gpu=False)
    built = graph(batch_size=8, num_threads=1, device_id=None, prefetch_queue_depth=1)
    built.build()
    with pipeline.Graph(built) as running:
        for batch in expected:
            difference = np.abs(running.run().as_array().astype(int) - batch.pictures.numpy().astype(int))
            assert difference.mean() < 0.1
            assert difference.max() <= 3
        with pytest.raises(StopIteration):
            running.run()


def test_any_number_of_threads_gives_the_same_pictures(source, bank):
    for one, other in zip(load(source, bank), load(source, bank, threads=3), strict=True):
        assert torch.equal(one.pictures, other.pictures)


def test_a_batch_without_any_object_passes(source, bank):
    """DALI gets empty arrays then."""
    rare = Source(source.shards, source.rows, AugmentSettings(flip=0.0, color=0.0, occluders=1e-9))
    still = Source(source.shards, source.rows, AugmentSettings(flip=0.0, color=0.0))
    for one, other in zip(load(rare, bank), load(still, bank), strict=True):
        assert not one.plan.occlusions.count.any()
        assert torch.equal(one.pictures, other.pictures)


def threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def settled() -> int:
    """How many threads are left; those of Python end a moment after they were joined."""
    found = -1
    while found != (found := threads()):
        time.sleep(0.5)
    return found


def test_the_graphs_threads_end_with_the_iterator(source, bank):
    endless = itertools.cycle(draws(4, 8, len(source.rows)))
    crop, settings = CropSettings(allow_border=True), LoaderSettings(device="cpu", threads=2)
    for _ in range(2):  # the first graph starts threads that all later ones share
        before = settled()
        loader = load_batches([source], endless, 8, MODEL, crop, settings, torch.device("cpu"), SEED, 1, bank)
        next(loader)
        running = threads()
        loader.close()  # type: ignore[attr-defined]
    assert settled() == before < running


def test_an_exception_in_the_feed_comes_out_and_ends_the_graph(source, bank):
    def broken():
        yield from draws(2, 8, len(source.rows))
        raise InputError("no more")

    before = threads()
    crop, settings = CropSettings(allow_border=True), LoaderSettings(device="cpu")
    loader = load_batches([source], broken(), 8, MODEL, crop, settings, torch.device("cpu"), SEED, 1, bank)
    with pytest.raises(InputError, match="no more"):
        list(loader)
    assert threads() <= before + 1


ENDLESS = """
import itertools, signal, sys
from pathlib import Path
import numpy as np, torch
from poselib.settings import ModelSettings
from shards.loader import Source, load_batches
from shards.manifest import ShardSet
from shards.occlude import open_bank
from shards.order import Draws
from shards.loader_settings import AugmentSettings, CropSettings, LoaderSettings

people, voc = ShardSet.open(sys.argv[1]), open_bank(Path(sys.argv[2]))
source = Source(people, people.select(), AugmentSettings(occluders=1.0))
places = np.arange(8)
draws = itertools.repeat(Draws(np.zeros_like(places), np.zeros_like(places), places))
crop, loader, device = CropSettings(allow_border=True), LoaderSettings(device="cpu", threads=2), torch.device("cpu")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have the tests ignore it
batches = load_batches([source], draws, 8, ModelSettings(), crop, loader, device, 0, 1, voc)
for number, _ in enumerate(batches):
    if number == 3:
        print("running", flush=True)
"""


def test_ctrl_c_ends_a_process_that_loads(shard_sets):
    command = [sys.executable, "-c", ENDLESS, str(shard_sets["h36m"]), str(shard_sets["voc"])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(pipeline.__file__).parents[1]
    ) as process:
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        try:
            assert process.stdout.readline() == "running\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate()
        finally:
            watchdog.cancel()
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT


@pytest.mark.gpu
def test_the_gpu_graph_gives_the_cpu_graphs_pictures_with_objects(source, bank):
    on_cpu, on_gpu = load(source, bank), load(source, bank, device="cuda:0", loader="gpu")
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert other.pictures.device.type == "cuda"
        difference = (one.pictures.int() - other.pictures.cpu().int()).abs().float()
        # The JPEG engines round the colour conversion otherwise.
        assert difference.mean() < 2.0
        assert torch.equal(one.targets, other.targets.cpu())
