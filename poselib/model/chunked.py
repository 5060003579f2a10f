"""The last 1x1 convolution and the soft-argmax as one step: the logits never exist as a whole.

Each joint's volume is made, reduced and dropped; the backward pass makes it again. Extra memory is one chunk of
volumes beside the gradients of features and weights, at the price of the convolution's forward pass done twice.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from poselib.model.recompute import expectation, logit_gradient

CPU_SAMPLES_CELLS = 2**19
"""Cells made at once: a published volume of one sample."""
GPU_SAMPLES_CELLS = 2**25
"""On an accelerator many samples share one matrix product; 128 MiB in float32."""


class ChunkedSoftArgmax(torch.autograd.Function):
    """Features `b c h w`, weight `j d c`, bias `j d` and the axes' positions u `w`, v `h`, z `d` to `b j 3`.

    Features, weight and bias share a type, in which the logits are made; sums are at least float32.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, u: Tensor, v: Tensor, z: Tensor
    ) -> Float[Tensor, "b j 3"]:
        """Joint by joint."""
        batch, joints = features.shape[0], weight.shape[0]
        expected = features.new_empty(batch, joints, 3, dtype=u.dtype)
        for joint, samples in _chunks(features, weight):
            logits = _logits(features[samples], weight[joint], bias[joint])
            expected[samples, joint] = expectation(logits, (u, v, z))[:, 0]
        ctx.save_for_backward(features, weight, bias, u, v, z, expected)
        return expected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of features, weight and bias, from logits made anew."""
        features, weight, bias, u, v, z, expected = ctx.saved_tensors
        sums = torch.promote_types(features.dtype, torch.float32)
        d_features = torch.zeros_like(features, dtype=sums)
        d_weight, d_bias = torch.zeros_like(weight, dtype=sums), torch.zeros_like(bias, dtype=sums)
        for joint, samples in _chunks(features, weight):
            logits = _logits(features[samples], weight[joint], bias[joint])
            one = (samples, slice(joint, joint + 1))
            logit_gradient(logits, (u, v, z), expected[one], grad[one], logits)
            d_logits = logits[:, 0].flatten(2)
            d_bias[joint] += d_logits.sum(dim=(0, 2), dtype=sums)
            for sample, d_one in enumerate(d_logits, start=samples.start):
                _add_product(d_weight[joint], d_one, features[sample].flatten(1).T)
                _add_product(d_features[sample].flatten(1), weight[joint].T, d_one)
        return d_features.to(features.dtype), d_weight.to(weight.dtype), d_bias.to(bias.dtype), None, None, None


def _logits(features: Tensor, weight: Tensor, bias: Tensor) -> Float[Tensor, "b 1 d h w"]:
    """One joint's volume for some samples."""
    pixels = features.flatten(2)
    product = torch.matmul(weight, pixels).add_(bias[:, None])
    return product.view(len(features), 1, len(weight), *features.shape[2:])


def _add_product(into: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a matrix product in place, in the sum's own precision."""
    if left.dtype == into.dtype:
        # BLAS wants dense rows; of a channels_last sum those are the columns.
        if into.stride(1) == 1:
            into.addmm_(left, right)
        else:
            into.T.addmm_(right.T, left.T)
    else:
        into += left @ right


def _chunks(features: Tensor, weight: Tensor) -> Iterator[tuple[int, slice]]:
    """Joints, and as many samples as may stand in memory together."""
    cells = weight.shape[1] * features.shape[2] * features.shape[3]
    limit = CPU_SAMPLES_CELLS if features.device.type == "cpu" else GPU_SAMPLES_CELLS
    at_once = max(1, limit // cells)
    for joint in range(weight.shape[0]):
        for start in range(0, features.shape[0], at_once):
            yield joint, slice(start, start + at_once)
