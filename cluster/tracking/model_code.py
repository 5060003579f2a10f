"""The code that MLflow keeps with a logged model, and runs to load it: the package that is installed does the work."""

from mlflow.models import set_model

from cluster.tracking.pose_model import PoseModel

set_model(PoseModel())
