"""The last 1x1 convolution and the soft-argmax as one step: the logits never exist as a whole.

Each joint's volume is made, reduced and dropped; the backward pass makes it again. Extra memory is one volume, in which
everything is done in place, beside the gradients of features and weights. The price is the convolution's forward pass
done twice.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_CELLS = 2**17
"""Cells made at once where one sample's volume is smaller."""
GPU_CELLS = 2**25
"""On an accelerator many samples share one launch; 128 MiB in float32."""
CPU_PIXELS = 512
"""Pixels of one matrix product on a CPU: as fast as all of them, and BLAS packs no copy of the features."""
PLANES = 8
"""Planes whose slopes are made at once."""


class ChunkedSoftArgmax(torch.autograd.Function):
    """Features `b c h w`, weight `j d c`, bias `j d` and the axes' positions u `w`, v `h`, z `d` to `b j 3`.

    Features, weight and bias share a type, in which the logits are made; sums are at least float32.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, u: Tensor, v: Tensor, z: Tensor
    ) -> Float[Tensor, "b j 3"]:
        """Joint by joint."""
        expected = features.new_empty(features.shape[0], weight.shape[0], 3, dtype=u.dtype)
        for p, samples, joint in _volumes(features, weight, bias, u.dtype):
            plane = p.sum(dim=1)
            marginals = (plane.sum(dim=1), plane.sum(dim=2), p.flatten(2).sum(dim=2))
            for axis, (marginal, place) in enumerate(zip(marginals, (u, v, z), strict=True)):
                expected[samples, joint, axis] = (marginal * place).sum(dim=1)
        ctx.save_for_backward(features, weight, bias, u, v, z, expected)
        return expected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of features, weight and bias, from logits made anew."""
        features, weight, bias, u, v, z, expected = ctx.saved_tensors
        d_features = torch.zeros_like(features, dtype=u.dtype)
        d_weight, d_bias = torch.zeros_like(weight, dtype=u.dtype), torch.zeros_like(bias, dtype=u.dtype)
        for volume, samples, joint in _volumes(features, weight, bias, u.dtype):
            slopes = [
                grad[samples, joint, axis, None] * (place - expected[samples, joint, axis, None])
                for axis, place in enumerate((u, v, z))
            ]
            _times_slopes(volume, *slopes)
            d_bias[joint] += volume.flatten(2).sum(dim=(0, 2))
            d_logits = volume.flatten(2).to(features.dtype)
            for sample, d_one in enumerate(d_logits, start=samples.start):
                pixels, d_pixels = features[sample].flatten(1), d_features[sample].flatten(1)
                for run in _runs(pixels):
                    _add_product(d_weight[joint], d_one[:, run], pixels[:, run].T)
                    _add_product(d_pixels[:, run], weight[joint].T, d_one[:, run])
        return d_features.to(features.dtype), d_weight.to(weight.dtype), d_bias.to(bias.dtype), None, None, None


def _volumes(
    features: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype
) -> Iterator[tuple[Float[Tensor, "b d h w"], slice, int]]:
    """Softmax volumes of one joint for some samples, which samples, and which joint. The next one takes its memory."""
    joints, depth, _ = weight.shape
    batch, _, height, width = features.shape
    limit = CPU_CELLS if features.device.type == "cpu" else GPU_CELLS
    at_once = min(batch, max(1, limit // (depth * height * width)))
    room = features.new_empty(at_once, depth, height * width)
    for joint in range(joints):
        for start in range(0, batch, at_once):
            samples = slice(start, min(batch, start + at_once))
            logits = room[: samples.stop - start]
            for sample, one in enumerate(logits, start=start):
                pixels = features[sample].flatten(1)
                for run in _runs(pixels):
                    torch.addmm(bias[joint, :, None], weight[joint], pixels[:, run], out=one[:, run])
            volume = logits.to(dtype)
            volume -= volume.amax(dim=(1, 2), keepdim=True)
            volume.exp_()
            volume /= volume.sum(dim=(1, 2), keepdim=True)
            yield volume.view(-1, depth, height, width), samples, joint


def _times_slopes(p: Float[Tensor, "b d h w"], u: Tensor, v: Tensor, z: Tensor) -> None:
    """Multiply by the sum of what stands along each axis, `b w`, `b h` and `b d`."""
    plane = v[:, :, None] + u[:, None, :]
    for start in range(0, p.shape[1], PLANES):
        run = slice(start, start + PLANES)
        p[:, run] *= z[:, run, None, None] + plane[:, None]


def _runs(pixels: Float[Tensor, "c hw"]) -> list[slice]:
    """Pixels that go into one matrix product."""
    count = pixels.shape[1]
    at_once = CPU_PIXELS if pixels.device.type == "cpu" else count
    return [slice(start, start + at_once) for start in range(0, count, at_once)]


def _add_product(into: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a matrix product in place, in the sum's own precision."""
    if left.dtype == into.dtype:
        into.addmm_(left, right)
    else:
        into += left @ right
