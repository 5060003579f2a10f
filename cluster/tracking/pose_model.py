"""A trained run as MLflow's pyfunc: what it takes, what it gives, and how mistakes of a request are told.

torch comes in with the weights, so that logging a model needs none of it.
"""

import base64
import io
from importlib.metadata import version
from typing import Any, Final

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from PIL import Image

from poselib.errors import InputError

RUN: Final = "run"
"""The artifact that holds `model.safetensors`, and `run.yaml` beside it."""
_REQUIRED: Final = (
    *("mlflow", "torch", "numpy", "opencv-python-headless", "pillow", "safetensors", "scipy", "pyyaml", "jsonargparse"),
    *("jaxtyping", "av", "array-api-compat", "rich"),
)


class PoseModel(PythonModel):
    """Poses of people in pictures that come as base64; `cluster.serving` says what a row holds."""

    def load_context(self, context: Any) -> None:
        """Load the weights, onto a GPU where there is one."""
        from cluster.predict.poses import Predictor

        self._predictor = Predictor.load(context.artifacts[RUN])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The pose of each row.

        Raises:
            MlflowException: a mistake in the request, which the scoring server answers with 400 and the reason.
        """
        from cluster.serving import answer_request

        try:
            return pd.DataFrame(answer_request(self._predictor, model_input.to_dict("records"), params or {}))
        except InputError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None


def signature() -> ModelSignature:
    """Columns and parameters of a request, columns of an answer; those of `poses.json`."""
    numbers, points = Array(DataType.double), Array(Array(DataType.double))
    texts, doubles = ("box_from", "root_depth_from", "focal_from"), ("root_depth_mm", "focal_px")
    answers: list[ColSpec | TensorSpec] = [ColSpec(points, name) for name in ("joints_px", "joints_mm", "camera_mm")]
    answers += [ColSpec(numbers, name) for name in ("spread_mm", "confidence", "box")]
    answers += [ColSpec(DataType.double, name) for name in doubles] + [ColSpec(DataType.string, name) for name in texts]
    answers += [ColSpec(DataType.long, name) for name in ("width", "height")]
    options = {"focal_px": 0.0, "fov_deg": 55.0, "root_depth_mm": 0.0, "stature_mm": 1700.0, "box_scale": 1.25}
    return ModelSignature(
        # An array of doubles would refuse whole numbers and null, in words that help nobody: `cluster.serving` checks.
        inputs=Schema([ColSpec(DataType.string, "picture"), ColSpec(AnyType(), "box", required=False)]),
        outputs=Schema(answers),
        params=ParamSchema([ParamSpec(name, DataType.double, value) for name, value in options.items()]),
    )


def input_example() -> pd.DataFrame:
    """One small picture, and the box of its whole."""
    picture = io.BytesIO()
    Image.new("RGB", (48, 64), (90, 120, 150)).save(picture, "PNG", optimize=True)
    text = base64.b64encode(picture.getvalue()).decode()
    return pd.DataFrame({"picture": [text], "box": [[0.0, 0.0, 48.0, 64.0]]})


def requirements() -> list[str]:
    """The packages that answering needs beside this one, which is on no index that could be trusted to hold it."""
    return [f"{name}=={version(name)}" for name in _REQUIRED]
