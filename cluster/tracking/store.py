"""MLflow, and nothing else: one experiment, one run, batches. Imported by the delivery process alone.

Everything here may be called again after a failure that left its outcome open. MLflow's database ignores a metric
whose name, step, time and value it holds, parameters and tags of equal value change nothing, files are replaced, and
the run is found by its key before one is created.
"""

import logging
import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Final

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from cluster.tracking.settings import TrackingSettings
from shards.locks import take

DATABASE: Final = "mlflow.db"
RUN_KEY_TAG: Final = "posecluster.run_key"
UNREACHABLE: Final = (MlflowException, SQLAlchemyError, OSError)
"""What a store that is down, locked or out of order raises."""

_PARTIAL: Final = ".mlflow.db.partial"
_METRICS_PER_CALL: Final = 1000  # these four are MLflow's own limits
_ITEMS_PER_CALL: Final = 100
_PARAM_LENGTH: Final = 6000
_TAG_LENGTH: Final = 5000
_PERMANENT: Final = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND")
_STATUS: Final = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


def is_permanent(error: Exception) -> bool:
    """Whether trying again cannot help: the store answered, and refused."""
    return isinstance(error, MlflowException) and error.error_code in _PERMANENT


def local_uri(runs_dir: Path, name: str = DATABASE) -> str:
    """The address of the SQLite store of a runs folder."""
    return URL.create("sqlite", database=str(runs_dir / name)).render_as_string()


class Store:
    """One run in an MLflow store.

    Opening makes the store and the experiment where they are missing, and finds the run by its key or creates it.
    """

    def __init__(self, runs_dir: Path, tracking: TrackingSettings, run_key: str, run_name: str) -> None:
        # Alembic and MLflow tell every migration of a new database.
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        server = tracking.uri.startswith("http")
        artifacts = None if server else (runs_dir / "mlflow-artifacts").as_uri()
        # Two processes that create the tables of one database at once break each other.
        with nullcontext() if server else _one_at_a_time(runs_dir / ".mlflow.lock"):
            if not tracking.uri:
                _make_tables(runs_dir)
            self._client = MlflowClient(tracking.uri or local_uri(runs_dir))
            experiment = self._client.get_experiment_by_name(tracking.experiment)
            if experiment is None:
                experiment_id = self._client.create_experiment(tracking.experiment, artifact_location=artifacts)
            else:
                experiment_id = experiment.experiment_id
        found = self._client.search_runs([experiment_id], f"tags.`{RUN_KEY_TAG}` = '{run_key}'", max_results=1)
        run = (
            found[0]
            if found
            else self._client.create_run(experiment_id, run_name=run_name, tags={RUN_KEY_TAG: run_key})
        )
        self.run_id: str = run.info.run_id
        self._experiment_id = run.info.experiment_id
        self._images: set[str] | None = None

    def send(
        self, metrics: Iterable[tuple[str, float, float, int]], params: dict[str, Any], tags: dict[str, str]
    ) -> None:
        """Log metrics (name, value, time in s, step), parameters and tags, in as few calls as MLflow allows."""
        points = (Metric(clean(name), value, round(time * 1000), step) for name, value, time, step in metrics)
        for chunk in _chunks(points, _METRICS_PER_CALL):
            self._client.log_batch(self.run_id, metrics=chunk)
        for chunk in _chunks((Param(clean(key), str(v)[:_PARAM_LENGTH]) for key, v in params.items()), _ITEMS_PER_CALL):
            self._client.log_batch(self.run_id, params=chunk)
        for chunk in _chunks((RunTag(clean(key), str(v)[:_TAG_LENGTH]) for key, v in tags.items()), _ITEMS_PER_CALL):
            self._client.log_batch(self.run_id, tags=chunk)

    def upload(self, path: Path, folder: str) -> None:
        """Store a file, or what a folder holds, among the run's artifacts."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder or path.name)
        else:
            self._client.log_artifact(self.run_id, str(path), folder or None)

    def image(self, path: Path, name: str, step: int, time: float) -> None:
        """Store a picture as one of a row over the steps; a (name, step) that is there stays. Time in s."""
        from PIL import Image

        if self._images is None:
            self._images = {Path(found.path).name for found in self._client.list_artifacts(self.run_id, "images")}
        # MLflow's own names; the small copy is what it writes last.
        begin = f"{clean(name).replace('/', '~')}+step+{step}+"
        if not any(one.startswith(begin) and one.endswith(".webp") for one in self._images):
            with Image.open(path) as picture:
                self._client.log_image(self.run_id, picture, key=clean(name), step=step, timestamp=round(time * 1000))
            self._images.add(f"{begin}.webp")

    def model(self, path: Path, step: int) -> None:
        """Store weights as a logged model that MLflow can serve, unless it has them already."""
        from cluster.tracking.logged_model import log_model

        log_model(self._client, self._experiment_id, self.run_id, path, step)

    def resume(self) -> None:
        """Show the run as running."""
        self._client.update_run(self.run_id, status="RUNNING")

    def end(self, status: str, time: float | None) -> None:
        """Show the run as ended; a run whose writer vanished while `running` counts as killed. Time in s."""
        end_time = None if time is None else round(time * 1000)
        self._client.set_terminated(self.run_id, _STATUS.get(status, "KILLED").replace("RUNNING", "KILLED"), end_time)


def clean(name: str) -> str:
    """A name as MLflow takes it: other characters become `_`, and it reads as a relative path."""
    plain = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:250]
    return posixpath.normpath(plain.strip("/")).replace("..", "__")


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _make_tables(runs_dir: Path) -> None:
    """Make the SQLite store where there is none: beside, and renamed, as nothing mends one whose maker was killed."""
    database, partial = runs_dir / DATABASE, runs_dir / _PARTIAL
    if database.exists():
        return
    for left in runs_dir.glob(f"{_PARTIAL}*"):
        left.unlink()
    MlflowClient(local_uri(runs_dir, _PARTIAL)).search_experiments(max_results=1)
    partial.rename(database)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("ab") as lock:
        take(lock, wait=True)
        yield
