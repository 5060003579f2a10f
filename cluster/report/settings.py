"""What `pose report` is asked. No torch here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from poselib.settings import check_at_least

MOST_RUNS: Final = 6
MOST_SAMPLES: Final = 500


@dataclass(frozen=True)
class ReportSettings:
    """One or several scored runs as one HTML page that needs no network.

    Attributes:
        runs: folders of runs that `pose eval` has scored; the others are compared with the first.
        score: which of their score cards: the file's name without its ending.
        out: the page; `report.html` in the run's folder, or in the current folder where there are several runs.
        samples: how many samples can be looked at.
        h36m: the shard set that was scored, where it is not where the first run's run.yaml says.
        draws: of the bootstrap.
        across_protocols: compare scores even where the protocols differ; the differences are on the page.
    """

    runs: tuple[Path, ...]
    score: str = "score"
    out: Path | None = None
    samples: int = 60
    h36m: str | None = None
    draws: int = 5000
    across_protocols: bool = False

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if not 1 <= len(self.runs) <= MOST_RUNS:
            raise ValueError(f"runs must be 1 to {MOST_RUNS} folders, not {len(self.runs)}")
        if not self.score or Path(self.score).name != self.score:
            raise ValueError(f"score must be a file's name without ending, such as score_val, not {self.score!r}")
        if self.out is not None and self.out.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"out must end in .html, not {self.out.name!r}")
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise ValueError(f"samples must lie in 1..{MOST_SAMPLES}, not {self.samples}")
        check_at_least(self, 100, "draws")
