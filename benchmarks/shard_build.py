"""Throughput of `pose shards build` against its bound: the same pictures decoded, cut, scaled and encoded, no more.

Synthetic videos in the official layout of Human3.6M, 1000 x 1000 px. Two recordings are rendered; hard links under the
names of others make the set as large as `--recordings` says. The bare loop takes frames and regions from a finished
set and must come to the same number of JPEG bytes. Both run in the same pool of processes, started anew each time, so
process start is in both times. They take turns; the ratio is the median over rounds. `cpu_ratio` compares the computing
time of all processes instead, which other work on the machine disturbs less.

    python benchmarks/shard_build.py [--workers 0] [--recordings N] [--frames 300] [--rounds 3] [--data DIR]
"""

import argparse
import contextlib
import io
import json
import os
import re
import resource
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from cluster.bench.about import about
from shards.build import build
from shards.manifest import ShardSet
from shards.settings import BuildSettings, StudioSettings
from shards.workers import run

TARGET = 0.85
RENDERED = ("Walking",)
LINKED = ("Directions", "Discussion", "Greeting", "Phoning", "Posing", "Purchases", "Smoking", "Photo", "Waiting")
LINKED_STEMS = tuple(f"{action}{ending}" for action in (*LINKED, "WalkDog", "WalkTogether") for ending in (" 1", ""))


@dataclass(frozen=True)
class Cut:
    """A picture to make: its frame, whole pixels left, top, right, bottom of the frame, and stored width and height."""

    frame: int
    region: tuple[int, int, int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class Recording:
    """What the bare loop makes in one task: videos with their pictures, and the JPEG quality."""

    videos: tuple[tuple[Path, tuple[Cut, ...]], ...]
    quality: int


def bare(recording: Recording) -> tuple[int, int]:
    """How many pictures a recording gives, and the bytes of their JPEGs."""
    cv2.setNumThreads(1)
    count = size = 0
    converter = VideoReformatter()
    for path, cuts in recording.videos:
        wanted = {cut.frame: cut for cut in cuts}
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for index, frame in enumerate(container.decode(stream)):
                if index in wanted:
                    count += 1
                    picture = converter.reformat(frame, format="rgb24").to_ndarray()
                    size += encoded(picture, wanted.pop(index), recording.quality)
                    if not wanted:
                        break
    return count, size


def encoded(frame: np.ndarray, cut: Cut, quality: int) -> int:
    """Bytes of the JPEG of a piece of a frame; black beyond the frame."""
    left, top, right, bottom = cut.region
    inner = frame[max(top, 0) : bottom, max(left, 0) : right]
    if inner.shape[:2] != (bottom - top, right - left):
        borders = (max(-top, 0), max(bottom - frame.shape[0], 0), max(-left, 0), max(right - frame.shape[1], 0))
        inner = cv2.copyMakeBorder(inner, *borders, cv2.BORDER_CONSTANT)
    if inner.shape[1::-1] != cut.size:
        inner = cv2.resize(inner, cut.size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(inner, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return len(jpeg)


def make_data(folder: Path, recordings: int, frames: int, workers: int) -> Path:
    """The raw folder, made where it does not lie yet."""
    from shards.studio.make import make_studio

    raw = folder / f"bench-h36m-{frames}" / "h36m"
    if not (raw / "metadata.xml").is_file():
        print(f"rendering {2 * len(RENDERED) * 4 * frames} frames into {raw.parent}", file=sys.stderr)
        make_studio(
            StudioSettings(
                out=raw.parent, frames=frames, subjects=("S1",), actions=RENDERED, mpii_pictures=0, voc_pictures=0,
                workers=workers,
            )
        )  # fmt: skip
    poses, videos = raw / "S1" / "MyPoseFeatures" / "D3_Positions", raw / "S1" / "Videos"
    rendered = sorted(path.stem for path in poses.glob("*.cdf") if path.stem not in LINKED_STEMS)
    for number, stem in enumerate(LINKED_STEMS):
        origin = rendered[number % len(rendered)]
        for path in (poses / f"{origin}.cdf", *videos.glob(f"{origin}.*.mp4")):
            link = path.with_name(stem + path.name.removeprefix(origin))
            if number < recordings - len(rendered) and not link.exists():
                os.link(path, link)
            elif number >= recordings - len(rendered):
                link.unlink(missing_ok=True)
    return raw


def recordings_of(raw: Path, shards: ShardSet, quality: int) -> list[Recording]:
    """The tasks of the bare loop: what the set holds."""
    by_recording: dict[int, dict[str, list[Cut]]] = {}
    for row in range(len(shards)):
        sample = shards.read(row)
        with Image.open(io.BytesIO(sample.jpeg)) as picture:
            width, height = picture.size
        matrix = sample.arrays["frame_from_stored"]
        left, top = (round(float(number)) for number in matrix[:, 2])
        region = (left, top, left + round(float(matrix[0, 0]) * width), top + round(float(matrix[1, 1]) * height))
        videos = by_recording.setdefault(int(shards.samples["shard"][row]), {})
        videos.setdefault(sample.names.picture, []).append(Cut(sample.names.frame, region, (width, height)))
    return [
        Recording(tuple((raw / name, tuple(cuts)) for name, cuts in videos.items()), quality)
        for videos in by_recording.values()
    ]


def timed_build(settings: BuildSettings) -> tuple[float, float, ShardSet]:
    """Seconds of a build from nothing, the largest worker in MiB, and the set."""
    shutil.rmtree(settings.out, ignore_errors=True)
    said = io.StringIO()
    began = time.perf_counter()
    with contextlib.redirect_stderr(said):
        shards = build(settings)
    seconds = time.perf_counter() - began
    peak = re.search(r"largest took (\d+) MiB", said.getvalue())
    return seconds, float(peak[1]) if peak else 0.0, shards


def timed_bare(tasks: list[Recording], workers: int) -> tuple[float, int, int]:
    """Seconds of the bare loop, pictures, and the bytes of their JPEGs."""
    began = time.perf_counter()
    made = list(run(bare, tasks, workers))
    return time.perf_counter() - began, sum(count for count, _ in made), sum(size for _, size in made)


def computed() -> float:
    """Seconds of computing of this process and of all that have ended below it."""
    own, below = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + below.ru_utime + below.ru_stime


def main() -> int:
    """Print a JSON line and a table row; 1 when the ratio misses the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--recordings", type=int, default=0)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "posecluster-bench")
    arguments = parser.parse_args()
    print(json.dumps({"about": about()}), flush=True)
    workers = arguments.workers or len(os.sched_getaffinity(0))
    most = len(LINKED_STEMS) + 2 * len(RENDERED)
    recordings = arguments.recordings or min(max(12, 2 * workers), most)  # work for every core
    raw = make_data(arguments.data, recordings, arguments.frames, workers)
    settings = BuildSettings(raw=raw, out=arguments.data / "set", workers=workers)
    _, _, shards = timed_build(settings)  # also brings files into memory
    tasks = recordings_of(raw, shards, settings.quality)
    stored = int(shards.samples["jpg_size"].sum())
    ratios, builds, bounds, peaks = [], [], [], []
    computing = {"bare": 0.0, "build": 0.0}
    for number in range(arguments.rounds):
        order = ("bare", "build") if number % 2 == 0 else ("build", "bare")
        for which in order:
            computing[which] -= computed()
            if which == "bare":
                seconds, count, size = timed_bare(tasks, workers)
                if (count, size) != (len(shards), stored):
                    print(f"the bare loop made {count} pictures of {size} bytes, not {len(shards)} of {stored}")
                    return 1
                bounds.append(round(seconds, 2))
            else:
                seconds, peak, _ = timed_build(settings)
                builds.append(round(seconds, 2))
                peaks.append(peak)
            computing[which] += computed()
        ratios.append(round(bounds[-1] / builds[-1], 3))
    ratio = statistics.median(ratios)
    decoded = recordings * 4 * arguments.frames
    row = {"bench": "shard_build", "ratio": ratio, "ratios": ratios, "build_s": builds, "bare_s": bounds}
    row["cpu_ratio"] = round(computing["bare"] / computing["build"], 3)
    row |= {"workers": workers, "pictures": len(shards), "decoded_frames": decoded, "worker_peak_mib": max(peaks)}
    print(json.dumps(row | {"pictures_per_s": round(len(shards) / min(builds), 1), "target": TARGET}))
    print(
        f"| shards built, share of decode + scale + encode alone, {len(shards)} pictures of {decoded} frames,"
        f" {workers} processes, median of {arguments.rounds} | {ratio:.2f} | at least {TARGET} |"
    )
    return int(ratio < TARGET)


if __name__ == "__main__":
    sys.exit(main())
