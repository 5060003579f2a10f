"""Training losses."""

from jaxtyping import Float
from torch import Tensor


def masked_l1(
    predicted: Float[Tensor, "b j 3"], target: Float[Tensor, "b j 3"], weights: Float[Tensor, "b j 3"]
) -> Float[Tensor, ""]:
    """Weighted absolute error, summed over a sample's coordinates and averaged over the samples.

    It divides by `b`, the micro-batch, and by no count of supervised joints: `b` is one number on every rank and at
    every step of a run, so the mean of the ranks' gradients is the gradient of their union.

    Args:
        predicted: u, v, z in volume units.
        target: the same.
        weights: 0 where a coordinate is not supervised; the target there may be anything finite.

    Source: Sun et al., "Integral Human Pose Regression", 2018; the normalisation is that of their code.
    """
    return ((predicted - target).abs() * weights).sum() / predicted.shape[0]
