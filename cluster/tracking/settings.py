"""Where a run is shown. No MLflow here: settings are read before anything heavy is imported."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

_SCHEMES: Final = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,199}")


@dataclass(frozen=True)
class TrackingSettings:
    """The MLflow store that a run is delivered to.

    Attributes:
        enabled: deliver to MLflow at all; `metrics.jsonl` is written in any case.
        uri: an MLflow server (`http://host:5000`) or a database; empty for `mlflow.db` in the runs folder.
            User and password of a server belong into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
        experiment: the MLflow experiment that collects the runs.
        pictures: draw the same validation samples after every validation.
        model: log the finished training's weights as a model that MLflow can serve.
    """

    enabled: bool = True
    uri: str = ""
    experiment: str = "posecluster"
    pictures: bool = True
    model: bool = True

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
        host: loopback interface to listen on; `pose mlflow` is there for others.
    """

    runs_dir: Path = Path("runs")
    port: int = 5000
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class RegisterSettings:
    """A trained run in MLflow's model registry.

    Attributes:
        run: folder of the run.
        name: of the registered model; another version of it where it is there already.
        uri: MLflow server or database; null takes the run's own.
        timeout_s: how long to wait for MLflow.
    """

    run: Path
    name: str
    uri: str | None = None
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and what would be right."""
        if not _MODEL_NAME.fullmatch(self.name):
            raise ValueError(
                "name must be of letters, digits, spaces and _ - . and begin with a letter or digit, at most 200 long,"
                f" not {self.name!r}"
            )
        if self.uri is not None:
            TrackingSettings(uri=self.uri)
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s must be above 0, not {self.timeout_s}")


@dataclass(frozen=True)
class ServerSettings:
    """An MLflow server for a cluster: a database, a folder of artifacts, one network interface, names and passwords.

    Attributes:
        folder: for artifacts, the SQLite databases, and the files of secrets.
        host: interface to listen on, by name or address; this machine alone by default.
        port: to listen on.
        auth: `basic` asks for name and password, `none` does not, `auto` does so where others can reach the server.
        store_file: file that holds the address of a PostgreSQL database, such as postgresql+psycopg://user:word@host/db,
            readable by its owner alone; null takes SQLite in `folder`.
        names: further names that the server is reached by.
        workers: server processes; 0 takes one on SQLite, four on PostgreSQL.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 5000
    auth: Literal["auto", "basic", "none"] = "auto"
    store_file: Path | None = None
    names: tuple[str, ...] = ()
    workers: int = 0

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port must lie in 1..65535, not {self.port}")
        if not 0 <= self.workers <= 64:
            raise ValueError(f"workers must lie in 0..64, not {self.workers}")
        if not self.host or self.host in ("0.0.0.0", "::", "*"):  # noqa: S104
            raise ValueError("host must name one interface, not all of them: give this machine's name or an address")
