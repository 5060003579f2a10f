"""A run's weights as a logged model in MLflow: models-from-code, the tensors as safetensors, no pickle anywhere."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus

NAME: Final = "pose"
WEIGHTS_TAG: Final = "posecluster.weights_sha256"
_BESIDE: Final = ("run.yaml", "score.json")
"""What prediction reads beside the weights: how crops are cut, precision, kind of boxes."""


def log_model(client: MlflowClient, experiment_id: str, run_id: str, weights: Path, step: int) -> str:
    """Log a file of weights, unless MLflow has it of this run already; the model's id.

    Safe to call again after a failure: an upload that was cut short is done again in its place. Deleting it would be
    for those alone who own the experiment.
    """
    with weights.open("rb") as file:  # the same file all the way, though a training may put another in its place
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if known := find_model(client, experiment_id, run_id, digest):
            return known
        begun = _of_run(client, experiment_id, run_id, digest)
        model = (
            begun[0]
            if begun
            else client.create_logged_model(
                experiment_id, name=NAME, source_run_id=run_id, tags={WEIGHTS_TAG: digest}, model_type="pose"
            )
        )
        file.seek(0)
        with _saved(model, run_id, file, weights.parent) as folder:
            client.log_model_artifacts(model.model_id, str(folder))
    outputs = client.get_run(run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def find_model(client: MlflowClient, experiment_id: str, run_id: str, digest: str) -> str:
    """The id of the logged model with these weights; empty where there is none."""
    found = (m for m in _of_run(client, experiment_id, run_id, digest) if m.status == LoggedModelStatus.READY)
    return next((str(model.model_id) for model in found), "")


def _of_run(client: MlflowClient, experiment_id: str, run_id: str, digest: str) -> list[LoggedModel]:
    condition = f"source_run_id = '{run_id}' AND tags.`{WEIGHTS_TAG}` = '{digest}'"
    return list(client.search_logged_models([experiment_id], filter_string=condition))


@contextmanager
def _saved(model: LoggedModel, run_id: str, weights: BinaryIO, beside: Path) -> Iterator[Path]:
    """The model's folder as MLflow wants it, made in a temporary one."""
    import mlflow.pyfunc  # takes seconds: only where a model is written
    from mlflow.models import Model

    from cluster.tracking.pose_model import RUN, input_example, requirements, signature

    with tempfile.TemporaryDirectory(prefix="pose-model-") as folder:
        run, target = Path(folder) / RUN, Path(folder) / "model"
        run.mkdir()
        with (run / "model.safetensors").open("wb") as copy:
            shutil.copyfileobj(weights, copy)
        for name in _BESIDE:
            if (beside / name).is_file():
                shutil.copyfile(beside / name, run / name)
        mlflow.pyfunc.save_model(
            target,
            python_model=str(Path(__file__).with_name("model_code.py")),
            artifacts={RUN: str(run)},
            signature=signature(),
            input_example=input_example(),
            pip_requirements=requirements(),
            mlflow_model=Model(
                artifact_path=model.artifact_location,
                model_uuid=model.model_id,
                run_id=run_id,
                model_id=model.model_id,
            ),
        )
        yield target
