"""Settings of searches. No torch and no Ray here."""

from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from cluster.config import SettingsError
from cluster.keys import keys
from cluster.settings import DataSettings, Run
from poselib.settings import check_at_least

Mode = Literal["min", "max"]
SPLIT_WITHOUT_VAL: Final = "search.metrics must not hold val/... for a data.split without validation subjects"


@dataclass(frozen=True)
class SearchSettings:
    """How a space is searched.

    Attributes:
        searcher: `random` draws, `grid` takes every combination of the lists, `tpe` and `nsga2` are Optuna's.
        scheduler: `asha` ends poor trials early, `pbt` has them go on from good ones with changed settings.
        metrics: what is judged, by its name in `metrics.jsonl`; several give a front, for `random`, `grid`, `tpe` and
            `nsga2` without a scheduler.
        modes: whether each metric is to become small or large; one of these per metric.
        trials: how many; a grid ends by itself where it has fewer.
        hours: after these, of all starts together, what runs is stopped with a checkpoint and the search can be
            resumed; 0 sets no limit.
        parallel: trials at the same time; 0 takes as many as the CPUs and GPUs hold.
        cpus: CPU cores set aside for a trial.
        gpus: GPUs set aside for a trial; below 1, trials share one.
        nodes: nodes that a trial's ranks are spread over; `cpus`, `gpus` and `engine.ranks` are then those of each.
        retries: new starts of a trial whose process on the cluster was lost; it goes on from its checkpoint.
        seed: of what is drawn.
        grace_epochs: epochs that `asha` gives every trial.
        reduction: of so many trials `asha` lets the best one go on.
        perturb_epochs: epochs after which `pbt` compares; a multiple of `validate_every`.
    """

    searcher: Literal["random", "grid", "tpe", "nsga2"] = "tpe"
    scheduler: Literal["none", "asha", "pbt"] = "none"
    metrics: tuple[str, ...] = ("val/mpjpe_mm",)
    modes: tuple[Mode, ...] = ("min",)
    trials: int = 16
    hours: float = 0.0
    parallel: int = 0
    cpus: float = 1.0
    gpus: float = 0.0
    nodes: int = 1
    retries: int = 1
    seed: int = 0
    grace_epochs: int = 1
    reduction: int = 3
    perturb_epochs: int = 5

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 1, "trials", "nodes", "grace_epochs", "perturb_epochs")
        check_at_least(self, 0, "hours", "parallel", "cpus", "gpus", "seed", "retries")
        if self.reduction < 2:
            raise ValueError(f"reduction must be at least 2, not {self.reduction}")
        if not self.metrics or len(set(self.metrics)) != len(self.metrics):
            raise ValueError(f"metrics must be one or more different names, not {list(self.metrics)}")
        if len(self.modes) != len(self.metrics):
            raise ValueError(f"modes must be {len(self.metrics)}, one per metric, not {len(self.modes)}")
        if len(self.metrics) > 1 and self.scheduler != "none":
            raise ValueError(f"scheduler must be none for several metrics: {self.scheduler} compares by one")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus must be a whole number or below 1, not {self.gpus}")


@dataclass(frozen=True)
class TuneSettings(Run):
    """A run whose settings are searched: what `space` leaves alone is the same in every trial.

    Attributes:
        name: of the search; its folder is `runs_dir/name`.
        data: shard sets and split.
        space: setting -> what it may be, see docs/tuning.md.
        search: how the space is searched.
        resume: name of a search to go on with; only `runs_dir` and the limits `search.trials`,
            `hours`, `parallel`, `cpus` and `gpus` may stand beside it.
        given: with `resume`, the keys that a file or the command line gave; filled in when they are read.
    """

    name: str = "search"
    data: DataSettings = field(default_factory=lambda: DataSettings(h36m=""))
    space: dict[str, Any] = field(default_factory=dict)
    search: SearchSettings = field(default_factory=SearchSettings)
    resume: str = ""
    given: tuple[str, ...] = field(default=(), compare=False, metadata={"hidden": True})

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        super().__post_init__()
        if self.resume:
            return
        if not self.data.h36m:
            raise ValueError("data.h36m must be given: the shard set of Human3.6M")
        if not self.space:
            raise ValueError("space must hold at least one setting and what it may be")
        if any(name.startswith("val/") for name in self.search.metrics) and not self.data.subjects("val"):
            raise ValueError(f"{SPLIT_WITHOUT_VAL}, as {self.data.split} is")
        if self.search.perturb_epochs % self.validate_every and self.search.scheduler == "pbt":
            raise ValueError(f"search.perturb_epochs must be a multiple of validate_every = {self.validate_every}")

    @property
    def elsewhere(self) -> str:
        """The words by which `pose tune` finds searches of another folder than the usual one."""
        return "" if self.runs_dir == Path("runs") else f" --runs_dir {self.runs_dir}"

    def with_given(self, origins: Container[str]) -> Self:
        """The settings with a note of the keys that were given: a limit may be set back to its default.

        Raises:
            SettingsError: a group was given as a whole, which does not tell its keys from defaults.
        """
        if not self.resume or self.given:
            return self
        groups = (key.partition(".")[0] for key in keys(TuneSettings) if "." in key)
        whole = [group for group in groups if group in origins]
        if whole:
            raise SettingsError(
                f"command line: {whole[0]} must be given key by key beside --resume, as --search.trials 16 is"
            )
        return replace(self, given=tuple(key for key in keys(type(self)) if key in origins))


@dataclass(frozen=True)
class BestSettings:
    """The best trial of a search, as a YAML for `pose train`.

    Attributes:
        name: of the search.
        runs_dir: where it lives.
        metric: which of its metrics decides; empty takes the first.
    """

    name: str
    runs_dir: Path = Path("runs")
    metric: str = ""


@dataclass(frozen=True)
class TuneReportSettings:
    """A search as a page: parallel coordinates, importance, learning curves, the front.

    Attributes:
        name: of the search.
        runs_dir: where it lives.
    """

    name: str
    runs_dir: Path = Path("runs")
