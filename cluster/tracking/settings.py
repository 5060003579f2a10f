"""Where a run is shown. No MLflow here: settings are read before anything heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_SCHEMES: Final = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class TrackingSettings:
    """The MLflow store that a run is delivered to.

    Attributes:
        enabled: deliver to MLflow at all; `metrics.jsonl` is written in any case.
        uri: an MLflow server (`http://host:5000`) or a database; empty for `mlflow.db` in the runs folder.
            User and password of a server belong into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
        experiment: the MLflow experiment that collects the runs.
    """

    enabled: bool = True
    uri: str = ""
    experiment: str = "posecluster"

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and what would be right."""
        if not self.experiment.strip():
            raise ValueError("experiment must not be empty")
        if not self.uri:
            return
        parts = urlsplit(self.uri)
        if parts.scheme.split("+")[0] not in _SCHEMES or "://" not in self.uri:
            raise ValueError(f"uri must be empty or begin with one of {', '.join(_SCHEMES)} and ://, not {self.uri!r}")
        if parts.scheme.startswith("http") and "@" in parts.netloc:
            raise ValueError("uri must not hold a password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")


@dataclass(frozen=True)
class UiSettings:
    """MLflow's pages on the local store.

    Attributes:
        runs_dir: where runs live.
        port: to listen on.
        host: interface to listen on; this machine alone by default.
    """

    runs_dir: Path = Path("runs")
    port: int = 5000
    host: str = "127.0.0.1"
