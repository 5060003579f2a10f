"""Soft-argmax: the expected position of a joint under the softmax of its heat map volume.

One definition, several implementations with the same numbers. Another one is a function in `IMPLEMENTATIONS`, a name
in `poselib.settings.SoftArgmax` and nothing else: the tests run over the dict.

Source: Sun et al., "Integral Human Pose Regression", 2018, equation 3.
"""

from collections.abc import Callable
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from poselib.model.chunked import ChunkedSoftArgmax
from poselib.model.recompute import RecomputedSoftArgmax
from poselib.model.sampling import highest_cells
from poselib.settings import CellOrigin, SoftArgmax

Axes = tuple[Tensor, Tensor, Tensor]
"""Positions of the cells along u, v and z: `w`, `h` and `d`."""
CHUNKED_FROM_BYTES: Final = 2**32
"""On a CPU `auto` takes the chunked form where a batch's logits would need this much."""
CHUNKED_FROM_SHARE: Final = 1 / 8
"""On an accelerator, where they would need this share of its memory."""


def projected_soft_argmax(
    features: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "jd c 1 1"],
    bias: Float[Tensor, " jd"],
    depth: int,
    cell_origin: CellOrigin = "center",
    implementation: SoftArgmax = "auto",
) -> Float[Tensor, "b j 3"]:
    """The last 1x1 convolution and `soft_argmax` of its logits; `chunked` never holds these as a whole.

    Args:
        features: what the convolution reads.
        weight: of the convolution; the depth cells of a joint stand together.
        bias: of the convolution.
        depth: depth cells `d` of each joint.
        cell_origin: where cells lie, see `cell_positions`.
        implementation: `auto` takes `chunked` where logits would crowd the device's memory, and else what `soft_argmax`
            takes. `recompute` puts the logits' gradient in their place, so it can be asked for once.
    """
    device, compiling = features.device.type, torch.compiler.is_compiling()
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
    if implementation == "auto" and not compiling:
        cells = features.shape[0] * weight.shape[0] * features.shape[2] * features.shape[3]
        implementation = "chunked" if cells * dtype.itemsize >= _chunked_from(features.device) else "recompute"
    axes = cell_axes((depth, *features.shape[2:]), cell_origin, dtype, features.device)
    if implementation == "chunked":
        joints = weight.to(dtype).view(-1, depth, weight.shape[1])
        return ChunkedSoftArgmax.apply(features.to(dtype), joints, bias.to(dtype).view(-1, depth), *axes)
    logits = F.conv2d(features, weight, bias)
    if implementation == "recompute" and not compiling:
        # Nobody else holds these logits.
        return RecomputedSoftArgmax.apply(logits.unflatten(1, (-1, depth)), *axes, True)
    return soft_argmax(logits, depth, cell_origin, implementation)


def soft_argmax(
    logits: Float[Tensor, "b jd h w"],
    depth: int,
    cell_origin: CellOrigin = "center",
    implementation: SoftArgmax = "auto",
) -> Float[Tensor, "b j 3"]:
    """Expected u, v, z of each joint in volume units: the volume spans [-0.5, 0.5] along each axis.

    At least float32 inside and out, whatever the logits' type, also under autocast. Gradients are of first order only
    in the forms `recompute` and `chunked`.

    Args:
        logits: `b (j d) h w`, the depth cells of a joint stand together; any memory format.
        depth: depth cells `d` of each joint.
        cell_origin: where cells lie, see `cell_positions`.
        implementation: `auto` takes `flat` inside torch.compile, which fuses it, and `recompute` outside: each is the
            faster and the lighter one there. `chunked` is `recompute` where logits exist already.
    """
    if implementation == "auto":
        implementation = "flat" if torch.compiler.is_compiling() else "recompute"
    axes = cell_axes((depth, *logits.shape[2:]), cell_origin, logits.dtype, logits.device)
    return IMPLEMENTATIONS[implementation](logits.unflatten(1, (-1, depth)), axes)


def highest_place(
    logits: Float[Tensor, "b jd h w"], depth: int, cell_origin: CellOrigin = "center"
) -> Float[Tensor, "b j 3"]:
    """u, v, z of each joint's highest cell in volume units, at least float32; it has no gradient.

    Arguments as for `soft_argmax`.
    """
    axes = cell_axes((depth, *logits.shape[2:]), cell_origin, logits.dtype, logits.device)
    cells = highest_cells(logits.unflatten(1, (-1, depth)))
    return torch.stack([axis[index] for axis, index in zip(axes, cells.unbind(0), strict=True)], dim=-1)


def cell_positions(
    cells: int, cell_origin: CellOrigin, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Float[Tensor, " n"]:
    """Where `n` cells lie on an axis of the volume.

    `center` puts cell i at (i + 0.5) / n - 0.5, so mirroring the cells negates the position to the last bit; `corner`
    at i / n - 0.5.
    """
    offset = 0.5 if cell_origin == "center" else 0.0
    # Half cells from the middle are exact numbers, so nothing is rounded but the quotient.
    return (torch.arange(cells, dtype=dtype, device=device) + (offset - cells / 2)) / cells


def cell_axes(
    shape: tuple[int, int, int], cell_origin: CellOrigin, dtype: torch.dtype, device: torch.device | None = None
) -> Axes:
    """`cell_positions` along a volume `d h w`, in the type that sums over logits of `dtype` are made in."""
    sums = torch.promote_types(dtype, torch.float32)
    u, v, z = (cell_positions(n, cell_origin, sums, device) for n in reversed(shape))
    return u, v, z


def _chunked_from(device: torch.device) -> int:
    """Bytes of logits from which `auto` takes the chunked form."""
    if device.type == "cuda":
        return int(CHUNKED_FROM_SHARE * torch.cuda.get_device_properties(device).total_memory)
    return CHUNKED_FROM_BYTES


def _reference(volume: Float[Tensor, "b j d h w"], axes: Axes) -> Float[Tensor, "b j 3"]:
    """Softmax, then the mean of each axis' marginal. The marginals of v and z share the sum over u."""
    p = volume.to(axes[0].dtype).flatten(2).softmax(dim=-1).view(volume.shape)
    along_w = p.sum(dim=4)
    marginals = (p.sum(dim=(2, 3)), along_w.sum(dim=2), along_w.sum(dim=3))
    return torch.stack([(m * axis).sum(dim=-1) for m, axis in zip(marginals, axes, strict=True)], dim=-1)


def _flat(volume: Float[Tensor, "b j d h w"], axes: Axes) -> Float[Tensor, "b j 3"]:
    """Four sums over all cells of a joint, which a compiler fuses into one pass; eagerly it is slow.

    Sums and no matrix product: under TF32 that would round the positions to ten bits.
    """
    cells = (2, 3, 4)
    volume = volume.to(axes[0].dtype)
    # The shift guards exp; the result does not depend on it, so neither does the gradient.
    e = (volume - volume.detach().amax(dim=cells, keepdim=True)).exp()
    u, v, z = axes
    moments = [(e * axis).sum(dim=cells) for axis in (u, v[:, None], z[:, None, None])]
    return torch.stack(moments, dim=-1) / e.sum(dim=cells)[..., None]


def _recompute(volume: Float[Tensor, "b j d h w"], axes: Axes) -> Float[Tensor, "b j 3"]:
    """The lightest: nothing of the volume's size is kept, and half-precision logits stay as they are."""
    return RecomputedSoftArgmax.apply(volume, *axes)


IMPLEMENTATIONS: Final[dict[str, Callable[[Tensor, Axes], Tensor]]] = {
    "reference": _reference,
    "flat": _flat,
    "recompute": _recompute,
    "chunked": _recompute,
}
"""Volumes `b j d h w` and their axes, in the type to sum in, to `b j 3`."""
