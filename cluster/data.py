"""A run's shard sets as the sources of its parts: training, validation, test."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from cluster.settings import Run
from cluster.settings_data import Part
from poselib.errors import InputError
from shards.augment import NO_AUGMENTATION, check_cover
from shards.damage import Policy
from shards.loader import Source
from shards.loader_settings import AugmentSettings
from shards.manifest import DamagedSample, ShardSet, open_manifest
from shards.occlude import Bank, open_bank
from shards.order import Order, slots_per_epoch
from shards.records import Manifest
from shards.sample import unpack
from shards.storage import is_far

_MEAN_POSE_SAMPLES: Final = 20_000
_FAR_WINDOW: Final = 32


@dataclass(frozen=True, eq=False)
class RunData:
    """What a run reads.

    Attributes:
        train: Human3.6M first, then MPII where it takes part.
        val: Human3.6M's validation subjects; None where the split has none.
        order: of the training.
        occluders: the bank that is pasted from; None where no source pastes objects.
    """

    train: tuple[Source, ...]
    val: Source | None
    order: Order
    occluders: Manifest | None = None

    @property
    def shard_sets(self) -> list[str]:
        """The hashes of the sets that train, in the order of the sources; the occluder bank's behind them."""
        manifests = [source.shards.manifest for source in self.train]
        return [manifest.set_hash for manifest in (*manifests, *([self.occluders] if self.occluders else []))]


def open_data(run: Run) -> RunData:
    """The sources and the order of a run.

    Raises:
        InputError: a shard set is missing, damaged, of another kind, covers too little or holds none of the subjects;
            or objects are to be pasted and there is no bank of them.
    """
    h36m = _open(run.data.h36m, "h36m", run, run.augment)
    rows = h36m.select(run.data.subjects("train"), run.data.every_train)
    train = [Source(h36m, rows, run.augment)]
    ratios: tuple[float, ...] = ()
    if run.data.mpii is not None:
        mpii = _open(run.data.mpii, "mpii", run, run.augment_mpii)
        train.append(Source(mpii, mpii.select(), run.augment_mpii))
        ratios = (1.0, run.data.mpii_ratio) if run.data.mpii_ratio else ()
    val = evaluation_source(run, "val") if run.data.subjects("val") else None
    return RunData(tuple(train), val, _order(run, train, ratios), _occluders(run, train))


def shard_window(run: Run) -> Literal["auto", "full"] | int:
    """How far a run mixes its samples; `auto` resolved for where its sets lie."""
    if run.data.shard_window != "auto":
        return run.data.shard_window
    return _FAR_WINDOW if any(is_far(place) for place in (run.data.h36m, run.data.mpii) if place) else "full"


def load_bank(run: Run, data: RunData) -> Bank | None:
    """The objects that a run pastes, in memory; None where it pastes none."""
    return open_bank(run.data.voc, run.loader.storage) if data.occluders and run.data.voc else None


def evaluation_source(run: Run, part: Part, folder: str | None = None) -> Source:
    """The validation or test samples of a run's split, without augmentation."""
    subjects = run.data.subjects(part)
    if not subjects:
        raise InputError(f"split {run.data.split} has no {part} subjects")
    every = run.data.every_val if part == "val" else run.data.every_test
    h36m = _open(folder or run.data.h36m, "h36m", run)
    return Source(h36m, h36m.select(subjects, every), NO_AUGMENTATION)


def mean_pose_mm(source: Source, policy: Policy = "error") -> np.ndarray:
    """The mean root-relative pose of a source in the camera frame: `17 3` mm, over 20,000 samples at most.

    Of a set behind a URL or on a network file system, they are taken from 32 shards at most.
    """
    rows = source.rows
    if is_far(source.shards.folder):
        shards = source.shards.samples["shard"][rows]
        known = np.unique(shards)
        rows = rows[np.isin(shards, known[:: -(-len(known) // _FAR_WINDOW)])]
    vectors = []
    for row in rows[:: max(1, len(rows) // _MEAN_POSE_SAMPLES)]:
        try:
            vectors.append(source.shards.read_one(int(row))[1])
        except DamagedSample:
            if policy == "error":
                raise
    joints = unpack(np.stack(vectors))["joints_mm"].astype(np.float64)
    return (joints - joints[:, :1]).mean(0)


def _order(run: Run, train: list[Source], ratios: tuple[float, ...]) -> Order:
    """The order of a training."""
    sizes, window = tuple(len(source.rows) for source in train), shard_window(run)
    return Order(
        run.seed,
        sizes,
        slots_per_epoch(sizes, ratios, ("h36m", "mpii").index(run.data.epoch_of)),
        run.batch.micro,
        run.batch.global_ or run.batch.micro,
        run.batch.last,
        window if isinstance(window, int) else 0,
        tuple(source.shards.shard_sizes(source.rows) for source in train) if isinstance(window, int) else (),
    )


def _open(folder: str, source: str, run: Run, augment: AugmentSettings = NO_AUGMENTATION) -> ShardSet:
    shards = ShardSet.open(folder, storage=run.loader.storage, tolerant=run.loader.damaged == "skip")
    if shards.manifest.source != source:
        raise InputError(f"{folder} holds {shards.manifest.source} samples; data.{source} needs {source}")
    manifest = shards.manifest
    check_cover((manifest.cover_width, manifest.cover_height), augment, run.crop, run.model, str(folder))
    return shards


def _occluders(run: Run, train: list[Source]) -> Manifest | None:
    """The manifest of the occluder bank, where a source needs one."""
    if not any(source.augment.occluders for source in train):
        return None
    if run.data.voc is None:
        raise InputError(
            "augment.occluders pastes objects over people, but data.voc names no bank of them; build one with"
            " `pose shards build VOC2012 data/shards/voc`, or set augment.occluders to 0"
        )
    manifest = open_manifest(run.data.voc, run.loader.storage)
    if manifest.kind != "occluders":
        raise InputError(f"{run.data.voc} holds {manifest.kind}; data.voc needs occluders")
    return manifest
