"""What a Slurm job asks for, and what is submitted as one. No torch here."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from cluster.settings import Run
from cluster.settings_commands import EvaluateSettings
from poselib.settings import check_at_least
from shards.settings import BuildSettings


@dataclass(frozen=True)
class JobSettings:
    """What each task of a job asks Slurm for. Empty values leave the site's own defaults.

    Attributes:
        executor: `slurm`; `local` starts the tasks as processes of this machine, all at once.
        partition: Slurm's.
        account: Slurm's.
        qos: Slurm's.
        minutes: time limit of a task; one that reaches it is requeued and goes on, up to three times.
        cpus: cores of a task.
        memory_gb: memory of a task; 0 leaves it to the site.
        at_once: how many tasks of an array may run at the same time.
        setup: shell lines before the task, such as `module load ffmpeg`.
        more: other options of sbatch by their long names, such as `{constraint: skylake}`.
        folder: where logs lie, and what submitit hands to the tasks; every node must see it.
    """

    executor: Literal["slurm", "local"] = "slurm"
    partition: str = ""
    account: str = ""
    qos: str = ""
    minutes: int = 24 * 60
    cpus: int = 8
    memory_gb: float = 0.0
    at_once: int = 256
    setup: tuple[str, ...] = ()
    more: dict[str, str] = field(default_factory=dict)
    folder: Path = Path("runs/jobs")

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 1, "minutes", "cpus", "at_once")
        check_at_least(self, 0, "memory_gb")

    @property
    def elsewhere(self) -> str:
        """The words by which `pose jobs` and `pose logs` find jobs of another folder than the usual one."""
        return "" if self.folder == JobSettings().folder else f" --jobs_dir {self.folder}"


@dataclass(frozen=True)
class SubmitShardsSettings(BuildSettings):
    """A shard set built by many machines at once.

    Attributes:
        tasks: into how many shares the parts are cut; one task makes one. The set does not depend on it.
        dry_run: print the batch script, submit nothing.
        job: what each task asks for. `job.cpus` says how many processes it starts, unless `workers` does.
    """

    tasks: int = 16
    dry_run: bool = False
    job: JobSettings = field(default_factory=JobSettings)

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        super().__post_init__()
        check_at_least(self, 1, "tasks")
        if self.share:
            raise ValueError("share cannot be set here: tasks says how many there are, and each makes one")

    def build_settings(self) -> BuildSettings:
        """What each task builds from; folders as absolute paths, since a job may start elsewhere."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(BuildSettings)}
        values |= {name: path.resolve() for name, path in values.items() if isinstance(path, Path)}
        return BuildSettings(**values | {"workers": self.workers or self.job.cpus})


@dataclass(frozen=True)
class RunJobSettings(JobSettings):
    """What a training or an evaluation asks Slurm for. Where it is silent, the site profile speaks.

    Attributes:
        executor: `slurm`; `local` starts the ranks as processes of this machine, and waits for them.
        minutes: time limit; 0 takes the profile's, or 24 hours.
        cpus: cores of each rank; 0 takes the profile's, or 8.
        memory_gb: of each node; 0 takes the profile's, or leaves it to the site.
        nodes: of the job.
        gpus: of each node, a rank for each; -1 takes the profile's, 0 trains on the CPU.
        ranks: of each node; 0 takes one per GPU, or one where there are none.
        grace_s: how long before its time limit a training is told to save.
    """

    minutes: int = 0
    cpus: int = 0
    nodes: int = 1
    gpus: int = -1
    ranks: int = 0
    grace_s: int = 120

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 1, "nodes", "grace_s", "at_once")
        check_at_least(self, 0, "minutes", "cpus", "ranks", "memory_gb")
        check_at_least(self, -1, "gpus")
        if self.executor == "local" and self.nodes > 1:
            raise ValueError(f"nodes must be 1 for the local executor, not {self.nodes}")


@dataclass(frozen=True)
class SubmitTrainSettings(Run):
    """A training as a Slurm job, or one for each seed as a job array.

    Attributes:
        seeds: train once with each, as `name-seed0` and so on; none trains the run itself.
        site: a site profile's file, or the name of one in `configs/site`.
        dry_run: print the batch script, the world, batch, accumulation, rate and steps; submit nothing.
        job: what it asks for.
    """

    seeds: tuple[int, ...] = ()
    site: str = "local"
    dry_run: bool = False
    job: RunJobSettings = field(default_factory=RunJobSettings)

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        super().__post_init__()
        if len(set(self.seeds)) < len(self.seeds) or any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds must be different numbers of at least 0, not {list(self.seeds)}")

    def runs(self) -> list[Run]:
        """The runs that are trained."""
        run = Run(**{entry.name: getattr(self, entry.name) for entry in fields(Run)})
        return [replace(run, seed=seed, name=f"{run.name}-seed{seed}") for seed in self.seeds] or [run]


@dataclass(frozen=True)
class SubmitEvalSettings(EvaluateSettings):
    """The score of a run as a Slurm job.

    Attributes:
        site: a site profile's file, or the name of one in `configs/site`.
        dry_run: print the batch script, submit nothing.
        job: what it asks for; one rank on one node.
    """

    site: str = "local"
    dry_run: bool = False
    job: RunJobSettings = field(default_factory=RunJobSettings)

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        super().__post_init__()
        if self.job.nodes > 1 or self.job.ranks > 1:
            raise ValueError("job must be of one rank on one node: an evaluation does not use more")

    def evaluation(self) -> EvaluateSettings:
        """What the job does."""
        return EvaluateSettings(**{entry.name: getattr(self, entry.name) for entry in fields(EvaluateSettings)})


@dataclass(frozen=True)
class JobsSettings:
    """List the jobs that were submitted from here.

    Attributes:
        jobs_dir: where they keep their logs, `job.folder` of `pose submit`.
        last: how many, from the newest on.
    """

    jobs_dir: Path = Path("runs/jobs")
    last: int = 20

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 1, "last")


@dataclass(frozen=True)
class LogsSettings:
    """What all ranks of a job say.

    Attributes:
        job: its id, or the name of a run or a job: the newest of that name.
        jobs_dir: where they keep their logs, `job.folder` of `pose submit`.
        follow: go on until the job has ended; else print what there is.
    """

    job: str
    jobs_dir: Path = Path("runs/jobs")
    follow: bool = True
