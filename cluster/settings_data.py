"""Which people and frames a run learns from and is scored on. No torch here."""

from dataclasses import dataclass
from typing import Literal

from poselib.settings import check_at_least

Split = Literal["eth", "trainval", "protocol1", "protocol2"]
Part = Literal["train", "val", "test"]
SPLITS: dict[str, dict[str, tuple[str, ...]]] = {
    "eth": {"train": ("S1", "S5", "S6", "S7"), "val": ("S8",), "test": ("S9", "S11")},
    "trainval": {"train": ("S1", "S5", "S6", "S7", "S8"), "val": (), "test": ("S9", "S11")},
    "protocol1": {"train": ("S1", "S5", "S6", "S7", "S8", "S9"), "val": (), "test": ("S11",)},
    "protocol2": {"train": ("S1", "S5", "S6", "S7", "S8"), "val": (), "test": ("S9", "S11")},
}
"""Human3.6M's subjects by split and part. Where `val` is empty nothing is left to select on: the last epoch counts."""


@dataclass(frozen=True)
class DataSettings:
    """What a run learns from and is scored on.

    Attributes:
        h36m: shard set of Human3.6M: its folder, or a URL that fsspec understands.
        mpii: shard set of MPII, the same; none trains on Human3.6M alone.
        voc: occluder bank of VOC2012, the same, for runs that paste objects over people.
        split: which subjects train, validate and test.
        train_subjects: others than the split's.
        val_subjects: others than the split's.
        test_subjects: others than the split's; none of them may train.
        mpii_ratio: MPII samples per Human3.6M sample; 0 concatenates the two sets.
        epoch_of: with a ratio, the set whose one pass is an epoch; concatenated, both are passed once.
        shard_window: how far samples are mixed. `full`: over the whole set. A number: within so many shards at a time,
            which keeps reads from afar together. `auto` takes `full` on local disks and 32 for URLs and network file
            systems; what it took at the first start stays.
        every_train: train on each n-th frame.
        every_val: validate on each n-th frame.
        every_test: test on each n-th frame.
    """

    h36m: str
    mpii: str | None = None
    voc: str | None = None
    split: Split = "eth"
    train_subjects: tuple[str, ...] = ()
    val_subjects: tuple[str, ...] = ()
    test_subjects: tuple[str, ...] = ()
    mpii_ratio: float = 0.0
    epoch_of: Literal["h36m", "mpii"] = "h36m"
    shard_window: Literal["auto", "full"] | int = "auto"
    every_train: int = 5
    every_val: int = 64
    every_test: int = 64

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if self.mpii_ratio < 0:
            raise ValueError(f"mpii_ratio must be at least 0, not {self.mpii_ratio}")
        check_at_least(self, 1, "every_train", "every_val", "every_test")
        if isinstance(self.shard_window, int) and self.shard_window < 1:
            raise ValueError(f"shard_window must be auto, full or at least 1, not {self.shard_window}")
        if self.epoch_of == "mpii" and not (self.mpii and self.mpii_ratio):
            raise ValueError("epoch_of mpii needs data.mpii and a data.mpii_ratio above 0")
        leaked = {*self.subjects("train"), *self.subjects("val")} & {*self.subjects("test")}
        if leaked:
            raise ValueError(f"test_subjects must neither train nor select, but {', '.join(sorted(leaked))} would")

    def subjects(self, part: Part) -> tuple[str, ...]:
        """The subjects of a part: the split's, or those named instead."""
        named: tuple[str, ...] = getattr(self, f"{part}_subjects")
        return named or SPLITS[self.split][part]
