"""What a Slurm job asks for, and what is submitted as one. No torch here."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

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
