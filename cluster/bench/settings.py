"""What `pose bench` and `pose profile` take. No torch here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cluster.settings import Run
from cluster.settings_data import DataSettings
from poselib.settings import check_at_least

Clock = Literal["wall", "cpu"]


@dataclass(frozen=True)
class NetworkSettings:
    """A cluster on paper.

    Attributes:
        gpus_per_node: GPUs that share a node.
        node_gb_per_s: what one GPU sends to others of its node, 10^9 bytes/s.
        network_gb_per_s: what one node sends to others, 10^9 bytes/s.
        latency_us: of one message between nodes.
    """

    gpus_per_node: int = 8
    node_gb_per_s: float = 300.0
    network_gb_per_s: float = 50.0
    latency_us: float = 10.0

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 1, "gpus_per_node")
        check_at_least(self, 0, "latency_us")
        for name in ("node_gb_per_s", "network_gb_per_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")


@dataclass(frozen=True)
class BenchSettings(Run):
    """A run whose training step is timed, on made-up pictures where no shard set is named; nothing is trained or kept.

    Attributes:
        name: of the bench; nothing is written under it.
        data: shard sets; with `data.h36m` the loader is timed too.
        against: settings of a second form, `key=value` each, that takes turns with the first.
        revision: a git revision of this repository whose code takes turns too; of `A..B`, B takes turns with A.
        reference: let the usual way (fp32, NCHW, naive soft-argmax, DistributedDataParallel) take turns too.
        with_loader: steps fetch batches from the loader, none of them made before the turn; in the usual way from a
            torch DataLoader on full frames.
        scaling: numbers of ranks on this machine that take turns, such as [1, 2].
        rounds: how often each form has its turn.
        steps: of a turn; with the loader at least twice as many as it makes batches ahead.
        clock: what the rounds go by; `cpu` is the time that rank 0 computes, for CPUs that others use too.
        most_spread: middle half of the rounds' ratios, as a share of their median, beyond which there is no verdict;
            below three rounds there is none either.
        paper: print what 1 to 256 GPUs would do with the measured step, see `network`.
        network: the cluster on paper.
        out: JSON file for all figures.
    """

    name: str = "bench"
    data: DataSettings = field(default_factory=lambda: DataSettings(h36m=""))
    against: tuple[str, ...] = ()
    revision: str = ""
    reference: bool = False
    with_loader: bool = False
    scaling: tuple[int, ...] = ()
    rounds: int = 5
    steps: int = 2
    clock: Clock = "wall"
    most_spread: float = 0.1
    paper: bool = False
    network: NetworkSettings = field(default_factory=NetworkSettings)
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        super().__post_init__()
        check_at_least(self, 1, "rounds", "steps")
        if any(ranks < 1 for ranks in self.scaling):
            raise ValueError(f"scaling must hold numbers of ranks, not {list(self.scaling)}")
        if any("=" not in word for word in self.against):
            raise ValueError(f"against must hold settings as key=value, not {list(self.against)}")
        if self.with_loader and not self.data.h36m:
            raise ValueError("with_loader must be false without data.h36m: there is nothing to load")
        if self.with_loader and self.clock == "cpu":
            raise ValueError("clock must be wall with with_loader: a DataLoader's workers compute on other clocks")
        if self.revision.count("..") > 1:
            raise ValueError(f"revision must be one revision or two as A..B, not {self.revision!r}")
        if not 0 < self.most_spread <= 1:
            raise ValueError(f"most_spread must lie in 0..1, above 0, not {self.most_spread}")


@dataclass(frozen=True)
class ProfileSettings(Run):
    """A run whose first steps are traced; its folder is left alone.

    Attributes:
        steps: traced, after two to warm up.
        out: folder for trace.json, which chrome://tracing and Perfetto open, and summary.txt.
    """

    steps: int = 5
    out: Path = Path("profile")

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        super().__post_init__()
        if not 1 <= self.steps <= 1000:
            raise ValueError(f"steps must lie in 1..1000, not {self.steps}: a trace of all others would show nothing")
