"""Everything a run is made of: one YAML, checked whole before anything starts. No torch here.

Field names are the keys of the YAML and of the command line (`--optimizer.lr 2e-4`). A trailing underscore, which
Python needs in `global_`, is dropped there: `batch.global`.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cluster.settings_data import DataSettings
from cluster.settings_engine import EngineSettings
from cluster.settings_weights import NetworkPart, check_weights
from cluster.tracking.settings import TrackingSettings
from poselib.settings import LossSettings, ModelSettings, check_at_least
from shards.loader_settings import AugmentSettings, CropSettings, LoaderSettings


@dataclass(frozen=True)
class BatchSettings:
    """Samples per step.

    Attributes:
        micro: samples of one forward pass; BatchNorm sees exactly these. Fixed for a run's life.
        global_: samples of one optimiser step over all ranks, a multiple of micro x ranks; 0 takes micro x ranks at the
            first start and keeps it. Gradients are accumulated where the ranks are too few.
        last: what becomes of an epoch's end that fills no whole step. `wrap`: the next epoch goes on in it. `drop`: it
            is left out of this epoch. `pad`: the epoch's first samples fill it up.
    """

    micro: int = 24
    global_: int = 0
    last: Literal["wrap", "drop", "pad"] = "wrap"

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if self.micro < 1:
            raise ValueError(f"micro must be at least 1, not {self.micro}")
        if self.global_ < 0 or self.global_ % self.micro:
            raise ValueError(f"global must be 0 or a multiple of micro = {self.micro}, not {self.global_}")


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam and its schedule.

    Attributes:
        lr: learning rate at the reference batch.
        betas: Adam's decay rates.
        milestones: epochs after which the rate is multiplied by `gamma`.
        gamma: see `milestones`.
        warmup_steps: steps over which the rate rises linearly from 0.
        lr_scale: scale the rate with global batch / `reference_batch`: not, by the root, or linearly.
        reference_batch: the batch that `lr` was chosen for.
        clip: largest norm of the gradient; 0 does not clip.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    milestones: tuple[float, ...] = (40, 60)
    gamma: float = 0.1
    warmup_steps: int = 0
    lr_scale: Literal["none", "sqrt", "linear"] = "none"
    reference_batch: int = 24
    clip: float = 0.0

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be above 0, not {self.lr}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in 0..1, below 1, not {list(self.betas)}")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must lie in 0..1, above 0, not {self.gamma}")
        if list(self.milestones) != sorted(self.milestones) or any(m <= 0 for m in self.milestones):
            raise ValueError(f"milestones must be rising epochs above 0, not {list(self.milestones)}")
        check_at_least(self, 0, "warmup_steps", "clip")
        if self.reference_batch < 1:
            raise ValueError(f"reference_batch must be at least 1, not {self.reference_batch}")


@dataclass(frozen=True)
class CheckpointSettings:
    """What is kept to resume from.

    Attributes:
        every_steps: save after each n-th step, besides every validation and the end; 0 saves there alone.
        keep: how many of the newest are kept; the best one stays besides.
        asynchronous: write while the training goes on; it waits only for a copy in memory. A crash during the write
            costs the steps since the checkpoint before.
    """

    every_steps: int = 0
    keep: int = 2
    asynchronous: bool = False

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if self.every_steps < 0:
            raise ValueError(f"every_steps must be at least 0, not {self.every_steps}")
        if self.keep < 1:
            raise ValueError(f"keep must be at least 1, not {self.keep}")


@dataclass(frozen=True)
class RestartSettings:
    """What a Slurm job does after a failure.

    Attributes:
        limit: starts in a row without a new checkpoint; the job then ends as FAILED instead of being requeued.
        exclude_nodes: have Slurm avoid a node whose rank has failed while the others only lost it.
    """

    limit: int = 3
    exclude_nodes: bool = False

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 1, "limit")


@dataclass(frozen=True)
class Run:
    """One training run: `pose train` makes `runs_dir/name` from it.

    Attributes:
        name: of the run and its folder.
        runs_dir: where runs live.
        seed: of weights, order and augmentation.
        weights: what the backbone starts from: `none` is random, `imagenet` torchvision's weights; else a file (.pth,
            .safetensors) or a URL of such weights.
        weights_sha256: first digits of that file's SHA-256, 8 to 64 of them.
        init_from: another run's folder (its best weights) or .safetensors file: the whole network starts from it.
        init_fresh: parts of the network that start at random in spite of `init_from`.
        epochs: how long to train; `epoch` is one pass over Human3.6M, or over both sets when concatenated.
        validate_every: validate after each n-th epoch.
        log_every: steps between two entries of the training curves.
        data: shard sets and split.
        crop: crops and targets.
        augment: augmentation of Human3.6M samples.
        augment_mpii: augmentation of MPII samples.
        loader: reading and decoding.
        model: network and volume.
        loss: what is minimised.
        batch: samples per step.
        optimizer: Adam and its schedule.
        engine: ranks, device, precision, levers of speed and memory.
        checkpoint: what is kept.
        restart: what a Slurm job does after a failure.
        tracking: MLflow.
    """

    name: str
    data: DataSettings
    runs_dir: Path = Path("runs")
    seed: int = 0
    weights: str = "none"
    weights_sha256: str = ""
    init_from: Path | None = None
    init_fresh: tuple[NetworkPart, ...] = ()
    epochs: int = 70
    validate_every: int = 1
    log_every: int = 10
    crop: CropSettings = field(default_factory=CropSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    augment_mpii: AugmentSettings = field(default_factory=lambda: AugmentSettings(flip=0.0, color=0.0))
    loader: LoaderSettings = field(default_factory=LoaderSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    restart: RestartSettings = field(default_factory=RestartSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if not self.name or self.name in {".", ".."} or "/" in self.name:
            raise ValueError(f"name must be the plain name of a folder, not {self.name!r}")
        check_at_least(self, 1, "epochs", "validate_every", "log_every")
        check_at_least(self, 0, "seed")
        self.loss.check(self.model)
        if self.batch.micro == 1 and self.model.crop_width == self.model.crop_height == 32:
            raise ValueError("batch.micro must be at least 2 for crops of 32x32: their last features are a single cell")
        check_weights(self.weights, self.weights_sha256, self.model)
        if self.init_from is not None and self.weights != "none":
            raise ValueError(f"init_from must be left out, or weights be none beside it, not {self.weights}")
        if self.init_from is not None and self.init_from.suffix in (".pth", ".pt", ".bin", ".tar", ".ckpt"):
            raise ValueError(
                f"init_from must be a run's folder or a .safetensors file, not {self.init_from}; other files are for"
                " weights"
            )
        if self.init_fresh and self.init_from is None:
            raise ValueError("init_fresh must stay empty without init_from: every part starts fresh then")

    @property
    def folder(self) -> Path:
        """Where everything that the run leaves behind stands."""
        return self.runs_dir / self.name
