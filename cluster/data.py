"""A run's shard sets as the sources of its parts: training, validation, test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.settings import Part, Run
from poselib.errors import InputError
from shards.augment import NO_AUGMENTATION, check_cover
from shards.loader import Source
from shards.manifest import ShardSet
from shards.order import Order, slots_per_epoch
from shards.sample import unpack
from shards.settings import AugmentSettings

_MEAN_POSE_SAMPLES = 20_000


@dataclass(frozen=True, eq=False)
class RunData:
    """What a run reads.

    Attributes:
        train: Human3.6M first, then MPII where it takes part.
        val: Human3.6M's validation subjects; None where the split has none.
        order: of the training.
    """

    train: tuple[Source, ...]
    val: Source | None
    order: Order

    @property
    def shard_sets(self) -> list[str]:
        """The hashes of the sets that train, in the order of the sources."""
        return [source.shards.manifest.set_hash for source in self.train]


def open_data(run: Run) -> RunData:
    """The sources and the order of a run.

    Raises:
        InputError: a shard set is missing, damaged, of another kind, covers too little or holds none of the subjects.
    """
    h36m = _open(run.data.h36m, "h36m", run, run.augment)
    rows = h36m.select(run.data.subjects("train"), run.data.every_train)
    train = [Source(h36m, rows, run.augment)]
    ratios: tuple[float, ...] = ()
    if run.data.mpii is not None:
        mpii = _open(run.data.mpii, "mpii", run, run.augment_mpii)
        train.append(Source(mpii, mpii.select(), run.augment_mpii))
        ratios = (1.0, run.data.mpii_ratio) if run.data.mpii_ratio else ()
    sizes = tuple(len(source.rows) for source in train)
    order = Order(run.seed, sizes, slots_per_epoch(sizes, ratios), run.batch.micro)
    return RunData(tuple(train), evaluation_source(run, "val") if run.data.subjects("val") else None, order)


def evaluation_source(run: Run, part: Part, folder: Path | None = None) -> Source:
    """The validation or test samples of a run's split, without augmentation."""
    subjects = run.data.subjects(part)
    if not subjects:
        raise InputError(f"split {run.data.split} has no {part} subjects")
    every = run.data.every_val if part == "val" else run.data.every_test
    h36m = _open(folder or run.data.h36m, "h36m", run)
    return Source(h36m, h36m.select(subjects, every), NO_AUGMENTATION)


def mean_pose_mm(source: Source) -> np.ndarray:
    """The mean root-relative pose of a source in the camera frame: `17 3` mm, over 20,000 samples at most."""
    step = max(1, len(source.rows) // _MEAN_POSE_SAMPLES)
    _, vectors = source.shards.read_bytes(source.rows[::step])
    joints = unpack(vectors)["joints_mm"].astype(np.float64)
    return (joints - joints[:, :1]).mean(0)


def _open(folder: Path, source: str, run: Run, augment: AugmentSettings = NO_AUGMENTATION) -> ShardSet:
    shards = ShardSet.open(folder)
    if shards.manifest.source != source:
        raise InputError(f"{folder} holds {shards.manifest.source} samples; data.{source} needs {source}")
    manifest = shards.manifest
    check_cover((manifest.cover_width, manifest.cover_height), augment, run.crop, run.model, str(folder))
    return shards
