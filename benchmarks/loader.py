"""CPU time per picture of the loader, beside a bare OpenCV loop and beside the usual way; and its memory over time.

    bare      OpenCV decodes the stored crop and warps it; bytes and matrices lie ready in memory
    loader    shards.loader.load_batches: order, read, plan, DALI, torch; the report's recipe without occluders
    usual     a torch DataLoader's worker decodes the full JPEG frame with OpenCV, warps, and augments and normalises
              in NumPy
    usual on crops    the same from the stored crops

The process keeps its pages, as the ranks of `pose train` do. CPU time is that of the process with all its threads and
children, so a busy machine disturbs it less than the clock; img/s per core is its inverse. The forms take turns over
some rounds, and the table shows medians; first `bare` and `loader`, then the usual ways, whose workers are
forked: after a fork the parent faults every page again that it writes to, which is no work of the loader's.

    python benchmarks/loader.py [--rounds 5] [--pictures 480] [--work FOLDER] [--memory-batches 10000]
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from cluster.bench.about import about
from cluster.bench.reference import UsualFrames, usual_loader
from cluster.launch import KEEP_PAGES
from poselib.camera import compose_affine, invert_affine
from poselib.settings import ModelSettings
from shards.build import build
from shards.loader import Batch, Source, load_batches, read
from shards.loader_settings import AugmentSettings, CropSettings, LoaderSettings
from shards.order import Draws, Order
from shards.readers import find_reader
from shards.sample import unpack
from shards.settings import BuildSettings, StudioSettings
from shards.source import Person
from shards.studio.make import make_studio

MICRO, CROP = 24, 256
BARE_TARGET, USUAL_TARGET, SLOPE_TARGET = 1.25, 2.0, 1000.0
MODEL = ModelSettings(crop_width=CROP, crop_height=CROP)
RECIPE = AugmentSettings(flip=0.5, color=0.2)


def prepare(work: Path) -> tuple[Source, list[Path]]:
    """Studio data at 1000 px: stored crops, and the full frames of the same samples as JPEG files."""
    raw, out, frames = work / "raw", work / "shards", work / "frames"
    make_studio(
        StudioSettings(
            out=raw,
            frames=12,
            frame_px=1000,
            subjects=("S1",),
            actions=("Directions", "Sitting"),
            mpii_pictures=0,
            voc_pictures=0,
            workers=1,
        )
    )
    settings = BuildSettings(raw=raw / "h36m", out=out, every=1, workers=1)
    shards = build(settings)
    frames.mkdir(exist_ok=True)
    paths = {path.stem: path for path in frames.glob("*.jpg")}
    if len(paths) < len(shards):
        _, reader = find_reader(settings)
        for part in reader.parts(settings):
            for person in reader.read(settings, part):
                if isinstance(person, Person):
                    path = frames / f"{person.key}.jpg"
                    bgr = cv2.cvtColor(person.picture, cv2.COLOR_RGB2BGR)
                    cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])
                    paths[person.key] = path
    return Source(shards, shards.select(), RECIPE), [paths[shards.read(row).key] for row in range(len(shards))]


def draws_of(source: Source, micro: int = MICRO) -> Iterator[Draws]:
    """The endless order of one source."""
    size = len(source.rows)
    order = Order(0, (size,), (size,), micro)
    return (order.micro_batch(index) for index in count())


def loader_of(source: Source, model: ModelSettings = MODEL, micro: int = MICRO) -> Iterator[Batch]:
    """Our loader on one thread, without an end."""
    settings = LoaderSettings(device="cpu", threads=1)
    return load_batches([source], draws_of(source, micro), micro, model, CropSettings(), settings, torch.device("cpu"))


def cpu_seconds() -> float:
    """CPU time of this process, its threads, and the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def make_forms(source: Source, frames: list[Path], pictures: int) -> dict[str, Callable[[], None]]:
    """What each form does with so many pictures."""
    every = Draws(*(np.zeros(len(frames), np.int64) for _ in range(2)), np.arange(len(frames)))
    jpegs, vectors = read([source], every)
    arrays = unpack(vectors.astype(np.float64))
    x, y, w, h = arrays["box"].T
    zero = np.zeros_like(w)
    linear = np.stack([np.stack([CROP / w, zero, -x * CROP / w], -1), np.stack([zero, CROP / h, -y * CROP / h], -1)], 1)
    from_frame = compose_affine(linear, invert_affine(arrays["frame_from_stored"]))
    loader = loader_of(source)
    next(loader)

    def bare() -> None:
        for index in range(pictures):
            stored = cv2.imdecode(jpegs[index % len(jpegs)], cv2.IMREAD_COLOR)
            cv2.warpAffine(stored, linear[index % len(jpegs)], (CROP, CROP), flags=cv2.INTER_LINEAR)

    def ours() -> None:
        for _ in islice(loader, pictures // MICRO):
            pass
        time.sleep(0.3)  # or what is made ahead would count for the next form

    def usual(sources: list[Path] | list[np.ndarray], crop_from_picture: np.ndarray) -> None:
        targets = np.zeros((len(sources), 17, 3))
        data = UsualFrames(sources, crop_from_picture, targets, CROP, CROP, flip=0.5, length=pictures)
        for _ in usual_loader(data, MICRO, 1):
            pass

    return {
        "bare": bare,
        "loader": ours,
        "usual": lambda: usual(frames, from_frame),
        "usual on crops": lambda: usual(jpegs, linear),
    }


def measure(forms: dict[str, Callable[[], None]], pictures: int, rounds: int) -> dict[str, float]:
    """Median CPU milliseconds per picture of each form, in turns after one round to warm up."""
    spent: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(rounds + 1):
        for form, act in forms.items():
            began = cpu_seconds()
            act()
            spent[form].append(1e3 * (cpu_seconds() - began) / pictures)
    return {form: statistics.median(values[1:]) for form, values in spent.items()}


def resident_slope(source: Source, batches: int) -> tuple[float, float]:
    """Growth of the resident memory in bytes per batch, fitted over the last nine tenths of a run; MB at its end."""
    tiny = ModelSettings(crop_width=32, crop_height=32)
    page, resident = resource.getpagesize(), np.ones(batches)  # a list would grow by 40 bytes per batch itself
    for number, _ in enumerate(islice(loader_of(source, tiny, micro=2), batches)):
        resident[number] = int(Path("/proc/self/statm").read_text().split()[1]) * page
    settled = resident[batches // 10 :]
    return float(np.polyfit(np.arange(len(settled)), settled, 1)[0]), resident[-1] / 1e6


def main() -> None:
    """Print JSON lines, a table and the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=480)
    parser.add_argument("--work", type=Path, help="keeps the data for the next time")
    parser.add_argument("--memory-batches", type=int, default=10_000)
    arguments = parser.parse_args()
    if not KEEP_PAGES.items() <= os.environ.items():  # the allocator reads them when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_PAGES)  # noqa: S606
    print(json.dumps({"about": about()}), flush=True)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pictures = max(1, arguments.pictures // MICRO) * MICRO
    with tempfile.TemporaryDirectory() as temporary:
        source, frames = prepare(arguments.work or Path(temporary))
        # Before anything else has left holes in this process' memory.
        slope, resident_mb = resident_slope(source, arguments.memory_batches)
        forms = list(make_forms(source, frames, pictures).items())
        times = measure(dict(forms[:2]), pictures, arguments.rounds)
        times |= measure(dict(forms[2:]), pictures, arguments.rounds)
    table = Table("form", "CPU ms per picture", "img/s per core", "loader's CPU time, of this form's")
    for form, ms in times.items():
        print(json.dumps({"form": form, "cpu_ms": round(ms, 3), "img_per_s_per_core": round(1e3 / ms, 1)}))
        table.add_row(form, f"{ms:.2f}", f"{1e3 / ms:.0f}", f"{times['loader'] / ms:.2f}")
    print(json.dumps({"slope_bytes_per_batch": round(slope, 1), "resident_mb": round(resident_mb, 1)}))
    verdicts = {
        f"CPU time, of the bare loop's (at most {BARE_TARGET})": (
            times["loader"] / times["bare"],
            times["loader"] <= BARE_TARGET * times["bare"],
        ),
        f"img/s per core, of the usual way's (at least {USUAL_TARGET:g})": (
            times["usual"] / times["loader"],
            times["usual"] >= USUAL_TARGET * times["loader"],
        ),
        f"resident memory, bytes per batch (below {SLOPE_TARGET:g})": (slope, slope < SLOPE_TARGET),
    }
    console = Console(stderr=True)
    console.print(table)
    console.print(
        f"apart: img/s per core, of the usual way's on crops: {times['usual on crops'] / times['loader']:.2f}"
    )
    for name, (value, held) in verdicts.items():
        console.print(f"{name}: {value:.2f}, {'held' if held else 'MISSED'}")
    sys.exit(not all(held for _, held in verdicts.values()))


if __name__ == "__main__":
    main()
