"""Soft-argmax that keeps three numbers per joint for its backward pass, and computes the softmax again there.

With p the softmax of a joint's logits, c a cell's position and E = sum p c, the gradient of the logits is
`p * sum_k g_k (c_k - E_k)`. So a joint's expectations are enough beside the logits, which exist anyway.

Joints are worked on one after another (small ones in groups), so nothing of all volumes' size is ever made but the
gradient itself, and half-precision logits never exist in float32 as a whole.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CPU_CELLS = 2**17
"""Cells of volumes worked on together, if more than one: they stay in a core's cache."""
GPU_CELLS = 2**24
"""On an accelerator they have to be worth a kernel launch; 64 MiB in float32."""


class RecomputedSoftArgmax(torch.autograd.Function):
    """Logits `b j d h w` and the axes' positions u `w`, v `h`, z `d` to the expectation `b j 3`.

    With `overwrite` the logits' gradient takes their place: for logits that nobody else holds, and one backward pass.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor, u: Tensor, v: Tensor, z: Tensor, overwrite: bool = False) -> Tensor:
        """Joint by joint."""
        expected = expectation(volume, (u, v, z))
        ctx.save_for_backward(volume, u, v, z, expected)
        ctx.overwrite, ctx.spent = overwrite, False
        return expected

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The gradient of the logits, in their type and memory format."""
        if ctx.spent:
            raise RuntimeError("a second backward pass needs model.soft_argmax reference: the logits are spent")
        volume, u, v, z, expected = ctx.saved_tensors
        out = volume if ctx.overwrite else torch.empty_like(volume)
        ctx.spent = ctx.overwrite
        logit_gradient(volume, (u, v, z), expected, grad, out)
        return out, None, None, None, None


def expectation(volume: Float[Tensor, "b j d h w"], axes: tuple[Tensor, Tensor, Tensor]) -> Float[Tensor, "b j 3"]:
    """Expected u, v, z under the softmax of each joint's volume; axes are u `w`, v `h`, z `d`."""
    x, places = _in_memory_order(volume, axes)
    expected = x.new_empty(*x.shape[:2], 3, dtype=axes[0].dtype)
    buffers = _Buffers(x, axes[0].dtype)
    for joints in _groups(x):
        p = buffers.softmax(x[joints])
        plane = p.sum(dim=2)
        marginals = (p.flatten(3).sum(dim=3), plane.sum(dim=3), plane.sum(dim=2))
        for marginal, (place, axis) in zip(marginals, places, strict=True):
            expected[joints][..., axis] = (marginal * place).sum(dim=2)
    return expected


def logit_gradient(
    volume: Float[Tensor, "b j d h w"],
    axes: tuple[Tensor, Tensor, Tensor],
    expected: Float[Tensor, "b j 3"],
    grad: Float[Tensor, "b j 3"],
    out: Float[Tensor, "b j d h w"],
) -> None:
    """Write the logits' gradient to `out`, which may be `volume` itself."""
    x, places = _in_memory_order(volume, axes)
    out, _ = _in_memory_order(out, axes, like=volume)
    first, second, third = (grad[..., k, None] * (place - expected[..., k, None]) for place, k in places)
    buffers = _Buffers(x, axes[0].dtype)
    for joints in _groups(x):
        p = buffers.softmax(x[joints])
        plane = second[joints][..., :, None] + third[joints][..., None, :]
        slopes = buffers.spare(out[joints])
        torch.add(first[joints][..., None, None], plane[:, :, None], out=slopes)
        torch.mul(p, slopes, out=out[joints])


class _Buffers:
    """Memory for the volumes worked on together; asking the system for it anew each time costs as much as the work.

    Args:
        x: all volumes.
        dtype: to compute in.
    """

    def __init__(self, x: Tensor, dtype: torch.dtype) -> None:
        size = max([0, *(x[group].numel() for group in _groups(x))])
        # Dense logits of that type need no copy; memory never touched costs a CPU nothing.
        self.p, self.copy = (torch.empty(size, dtype=dtype, device=x.device) for _ in range(2))

    def softmax(self, x: Float[Tensor, "b j n h w"]) -> Float[Tensor, "b j n h w"]:
        """Softmax over the cells of each joint. On a CPU it is several times as fast as torch's exp."""
        if x.dtype != self.p.dtype or not x.is_contiguous():
            x = _like(self.copy, x).copy_(x)
        p = _like(self.p, x)
        torch.softmax(x.flatten(2), dim=2, out=p.flatten(2))
        return p

    def spare(self, out: Float[Tensor, "b j n h w"]) -> Float[Tensor, "b j n h w"]:
        """Memory shaped like `out`, dense and in the type to compute in: itself, or that of the copied logits."""
        if out.dtype == self.p.dtype and out.is_contiguous():
            return out
        return _like(self.copy, out)


def _like(buffer: Tensor, x: Tensor) -> Tensor:
    """The beginning of a buffer in the shape of `x`."""
    return buffer[: x.numel()].view(x.shape)


def _groups(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Samples and joints whose volumes are worked on together: as many as fit, at least one."""
    limit = CPU_CELLS if x.device.type == "cpu" else GPU_CELLS
    batch, joints = x.shape[:2]
    cells = x[0, 0].numel()
    samples_at_once = max(1, limit // (joints * cells))
    joints_at_once = max(1, min(joints, limit // cells))
    for sample in range(0, batch, samples_at_once):
        for joint in range(0, joints, joints_at_once):
            yield slice(sample, sample + samples_at_once), slice(joint, joint + joints_at_once)


def _in_memory_order(
    volume: Tensor, axes: tuple[Tensor, Tensor, Tensor], like: Tensor | None = None
) -> tuple[Tensor, list[tuple[Tensor, int]]]:
    """The volume with the axis that lies densest in memory last, and of each of the three its positions and number.

    channels_last logits have their depth cells side by side; reading them along w would touch every cache line often.
    """
    u, v, z = axes
    if (volume if like is None else like).stride(2) == 1:
        return volume.permute(0, 1, 3, 4, 2), [(v, 1), (u, 0), (z, 2)]
    return volume, [(z, 2), (v, 1), (u, 0)]
