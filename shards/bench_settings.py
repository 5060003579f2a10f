"""What `pose loader bench` measures. No torch here."""

from dataclasses import dataclass, field
from typing import Literal

from poselib.settings import ModelSettings, check_at_least
from shards.loader_settings import AugmentSettings, CropSettings
from shards.storage_settings import StorageSettings


@dataclass(frozen=True)
class LoaderBenchSettings:
    """Time each stage of the loader on a shard set, as a run with these settings would use it.

    Attributes:
        folder: of the shard set, or its URL.
        voc: occluder bank, its folder or URL; with one, pasting objects is measured too.
        crop_width: of the crops, px.
        crop_height: of the crops, px.
        batch: samples of a micro-batch.
        threads: DALI's CPU threads; 0 takes every core.
        device: where DALI decodes and warps; `auto` takes CUDA where it is.
        hw_decoder_load: share of the pictures that go to the GPU's JPEG engines, where it has them.
        seconds: about how long each stage is measured.
        shard_window: shards that samples are mixed within; 0 for the whole set.
        augment: augmentation.
        crop: how crops are cut.
        storage: how the set is reached.
    """

    folder: str
    voc: str | None = None
    crop_width: int = 256
    crop_height: int = 256
    batch: int = 24
    threads: int = 0
    device: Literal["auto", "cpu", "gpu"] = "auto"
    hw_decoder_load: float = 0.65
    seconds: float = 2.0
    shard_window: int = 0
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    crop: CropSettings = field(default_factory=lambda: CropSettings(allow_border=True))
    storage: StorageSettings = field(default_factory=StorageSettings)

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        ModelSettings(crop_width=self.crop_width, crop_height=self.crop_height)
        check_at_least(self, 1, "batch")
        check_at_least(self, 0, "threads", "shard_window")
        if not 0 <= self.hw_decoder_load <= 1:
            raise ValueError(f"hw_decoder_load must lie in 0..1, not {self.hw_decoder_load}")
        if not 0 < self.seconds <= 600:
            raise ValueError(f"seconds must lie in 0..600, above 0, not {self.seconds}")
