"""A search as a Slurm job. No torch and no Ray here."""

from dataclasses import dataclass, field, fields

from cluster.settings_submit import RunJobSettings
from tune.settings import TuneSettings


@dataclass(frozen=True)
class SubmitTuneSettings(TuneSettings):
    """A search as a Slurm job, with Ray on all its nodes.

    Attributes:
        site: a site profile's file, or the name of one in `configs/site`.
        dry_run: print the batch script, submit nothing.
        job: what it asks for; `gpus` and `cpus` of each node are what the trials share.
    """

    site: str = "local"
    dry_run: bool = False
    job: RunJobSettings = field(default_factory=lambda: RunJobSettings(grace_s=300))

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        super().__post_init__()
        if self.job.executor == "local":
            raise ValueError("job.executor must be slurm: `pose tune` searches on this machine")
        if self.job.ranks:
            raise ValueError("job.ranks must be 0: the search starts the ranks of its trials")
        if self.search.nodes > self.job.nodes:
            raise ValueError(
                f"search.nodes must be at most job.nodes = {self.job.nodes}, not {self.search.nodes}: each trial takes"
                " so many"
            )

    def search_settings(self) -> TuneSettings:
        """The search."""
        return TuneSettings(**{entry.name: getattr(self, entry.name) for entry in fields(TuneSettings)})
