"""Settings of studies. No torch and no Ray here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cluster.settings_submit import RunJobSettings
from cluster.tracking.settings import TrackingSettings
from poselib.settings import check_at_least
from shards.settings import StudioSettings
from tune.published import TABLES


@dataclass(frozen=True)
class ReportTablesSettings:
    """The report's tables, trained anew: each row with several seeds, its mean beside the published figure.

    Attributes:
        scale: `full` trains the packaged rows on your shards; `studio` a small form of them on synthetic people, each
            in minutes on one core. What that finds says nothing about Human3.6M.
        name: of the study; its runs and tables stand in `runs_dir/name`. Empty takes `report-tables`, with `-studio`
            behind it for that scale.
        runs_dir: where studies live.
        only: tables to take, `table3` or `table1,table4`; empty takes all.
        seeds: train each row once with each.
        epochs: for how long; 0 takes the rows' own, 70, or 8 in the studio.
        parallel: trainings at the same time on this machine; 0 takes one at full scale, and in the studio as many as
            there are cores for their threads.
        minutes: start no training after so many; 0 sets no limit.
        dry_run: say what would be trained, start nothing.
        collect: write the tables from what is there, start nothing.
        submit: hand what is missing to Slurm, one job array for each row; `collect` later.
        site: with `submit`, a site profile's file, or the name of one in `configs/site`.
        job: with `submit`, what each training asks Slurm for.
        h36m: shard set of Human3.6M, another than the rows' own; the studio makes its sets itself.
        mpii: shard set of MPII, the same.
        voc: occluder bank, the same.
        work: the studio's data.
        studio: what the studio makes; its `out` is `work/raw`.
        tracking: MLflow; the experiment is the study's name unless one is given here.
    """

    scale: Literal["full", "studio"] = "full"
    name: str = ""
    runs_dir: Path = Path("runs")
    only: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 0
    parallel: int = 0
    minutes: float = 0.0
    dry_run: bool = False
    collect: bool = False
    submit: bool = False
    site: str = "local"
    job: RunJobSettings = field(default_factory=RunJobSettings)
    h36m: str = ""
    mpii: str = ""
    voc: str = ""
    work: Path = Path("data/study")
    studio: StudioSettings = field(
        default_factory=lambda: StudioSettings(out=Path("data/study/raw"), frames=6, frame_px=500, mpii_pictures=240)
    )
    tracking: TrackingSettings = field(default_factory=TrackingSettings)

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 0, "epochs", "parallel", "minutes")
        if "/" in self.name or self.name in {".", ".."}:
            raise ValueError(f"name must be the plain name of a folder, not {self.name!r}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds must be one or more different numbers of at least 0, not {list(self.seeds)}")
        known = [table.name for table in TABLES]
        strange = [name for name in self.tables if name not in known]
        if strange or not self.tables:
            raise ValueError(f"only must name some of {', '.join(known)}, not {self.only!r}")
        if self.scale == "studio" and self.submit:
            raise ValueError("submit must be false for scale studio: it is for one machine")
        if self.scale == "studio" and (self.h36m or self.mpii or self.voc):
            raise ValueError("scale must be full where shard sets are given: the studio makes its own")

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables to take."""
        named = tuple(name.strip() for name in self.only.split(",") if name.strip())
        return named if self.only else tuple(table.name for table in TABLES)

    @property
    def study(self) -> str:
        """The name of the study."""
        return self.name or ("report-tables" if self.scale == "full" else "report-tables-studio")

    @property
    def folder(self) -> Path:
        """Where its runs and tables stand."""
        return self.runs_dir / self.study
