"""What the commands around a run take: its score, its first samples, the demo. No torch here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.settings import Run
from poselib.settings import check_at_least
from shards.settings import StudioSettings


@dataclass(frozen=True)
class ShowSettings(Run):
    """A run, and the picture of the samples that its training begins with.

    Attributes:
        sheet: picture that is written; .jpg or .png.
        samples: how many samples it shows.
    """

    sheet: Path = Path("show.jpg")
    samples: int = 24

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        super().__post_init__()
        if self.sheet.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            raise ValueError(f"sheet must end in .jpg or .png, not {self.sheet.name}")
        if not 1 <= self.samples <= 1000:
            raise ValueError(f"samples must lie in 1..1000, not {self.samples}")


@dataclass(frozen=True)
class EvaluateSettings:
    """Score a run on held-out subjects.

    Attributes:
        run: folder of the run.
        protocol: whom and which frames to score, and the figure that counts: as the run's own settings say, or as
            published; see docs/training.md.
        part: which part of the split.
        h36m: another shard set than the run's.
        weights: `best` on validation, where there was one, or `last`.
        flip_test: average with the mirrored crop's prediction.
        leaderboard: write the predictions as CSV too, as the ETH course's leaderboard takes them; with protocol eth.
        against: compare with another run (its card of the same name) or another score card.
        across_protocols: compare even where the two cards' protocols differ; the differences are printed.
        batch: samples per forward pass.
        device: where to compute.
        threads: CPU threads; 0 takes every core.
    """

    run: Path
    protocol: Literal["run", "eth", "protocol1", "protocol2"] = "run"
    part: Literal["val", "test"] = "test"
    h36m: str | None = None
    weights: Literal["best", "last"] = "best"
    flip_test: bool = False
    leaderboard: bool = False
    against: Path | None = None
    across_protocols: bool = False
    batch: int = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 1, "batch")
        check_at_least(self, 0, "threads")
        if self.leaderboard and self.protocol != "eth":
            raise ValueError("leaderboard must stand beside --protocol eth: it takes every sample that the set holds")


@dataclass(frozen=True)
class DemoSettings:
    """The whole way on this machine, on embedded data: studio, shards, training, score card, MLflow.

    Attributes:
        work: folder for everything it makes.
        stored_px: side of the stored crops.
        studio: the embedded data; its `out` is `work/raw`.
        train: the run; its shard sets are those in `work/shards`.
    """

    train: Run
    studio: StudioSettings
    work: Path = Path("data/demo")
    stored_px: int = 80
