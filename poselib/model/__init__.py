"""The network of integral pose regression, in plain torch."""

from poselib.model.network import PoseNetwork

__all__ = ["PoseNetwork"]
