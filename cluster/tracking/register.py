"""`pose register`: a run's best weights as a version of a model in MLflow's registry."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from cluster.tracking.files import read_json
from cluster.tracking.handle import deliver, tracking_of
from cluster.tracking.journal import Journal, read_records
from cluster.tracking.settings import RegisterSettings, TrackingSettings
from poselib.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

WEIGHTS = "model.safetensors"
_SERVING_PORT = 5001  # MLflow's own choice, 5000, is where `pose ui` and `pose mlflow` listen


def register(settings: RegisterSettings) -> None:
    """`pose register`: deliver what MLflow lacks of the run, its weights with it, and register them.

    The same weights under the same name are registered once.

    Raises:
        InputError: no run, no weights yet, or MLflow cannot be reached or refuses; one line.
    """
    tracking = _tracking(settings)
    digest = _digest(settings.run / WEIGHTS)
    console = Console()
    with console.status(f"delivering {settings.run} to MLflow"):
        _hand_over(settings, tracking)
        version, is_new = _register(settings, tracking, digest)
    where = tracking.uri or _local_uri(settings.run)
    said = "registered" if is_new else "was registered before"
    lines = [
        f"{settings.name} version {version} {said}: the weights of {settings.run}; next:",
        f"MLFLOW_TRACKING_URI={where} mlflow models serve --env-manager local -m 'models:/{settings.name}/{version}'"
        f" --port {_SERVING_PORT}",
    ]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _tracking(settings: RegisterSettings) -> TrackingSettings:
    """The store that the run is registered in."""
    tracking = tracking_of(settings.run)
    return replace(tracking, enabled=True, uri=tracking.uri if settings.uri is None else settings.uri)


def _digest(weights: Path) -> str:
    try:
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise InputError(f"{weights} does not exist: the run has not saved a model yet; train it further") from error


def _hand_over(settings: RegisterSettings, tracking: TrackingSettings) -> None:
    """Have everything of the run in MLflow, its weights too."""
    from cluster.weights import load_model_step

    step = load_model_step(settings.run / WEIGHTS)
    named = [one["step"] for one, _ in read_records(settings.run) if one["kind"] == "model"]
    if not named or named[-1] != step:
        with Journal(settings.run) as journal:
            journal.model(WEIGHTS, step)
    deliver(settings.run, tracking, settings.timeout_s)


def _register(settings: RegisterSettings, tracking: TrackingSettings, digest: str) -> tuple[str, bool]:
    """The version's number, and whether it is a new one."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow
    from mlflow import MlflowClient

    from cluster.tracking.delivery import STATE_NAME
    from cluster.tracking.store import UNREACHABLE

    where = tracking.uri or _local_uri(settings.run)
    mlflow.set_tracking_uri(where)
    try:
        client = MlflowClient(where)
        run_id = str(read_json(settings.run / STATE_NAME).get("run_id", ""))
        return _version(client, settings.name, run_id, digest)
    except UNREACHABLE as error:
        line = " ".join(str(error).split())[:300]
        raise InputError(f"MLflow at {tracking.uri or where} did not register {settings.name}: {line}") from error


def _version(client: "MlflowClient", name: str, run_id: str, digest: str) -> tuple[str, bool]:
    from mlflow.exceptions import MlflowException

    from cluster.tracking.logged_model import WEIGHTS_TAG, find_model

    experiment_id = client.get_run(run_id).info.experiment_id
    model_id = find_model(client, experiment_id, run_id, digest)
    if not model_id:
        raise InputError("the run's weights have changed meanwhile; run the same command again")
    try:
        client.create_registered_model(name, description="3D human pose from one picture; see the run for its score.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.run_id == run_id and version.tags.get(WEIGHTS_TAG) == digest:
            return str(version.version), False
    source = client.get_logged_model(model_id).artifact_location
    made = client.create_model_version(
        name, source=source, run_id=run_id, model_id=model_id, tags={WEIGHTS_TAG: digest}, await_creation_for=0
    )
    return str(made.version), True


def _local_uri(run: Path) -> str:
    from cluster.tracking.store import local_uri

    return local_uri(run.resolve().parent)
