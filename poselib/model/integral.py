"""Soft-argmax: the expected position of a joint under the softmax of its heat map volume.

One definition, several implementations with the same numbers. Another one (a backward pass that recomputes, a
chunked mode) is a function in `IMPLEMENTATIONS`, a name in `poselib.settings.SoftArgmax` and nothing else: the tests
run over the dict.

Source: Sun et al., "Integral Human Pose Regression", 2018, equation 3.
"""

from collections.abc import Callable
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from poselib.settings import CellOrigin, SoftArgmax

Axes = tuple[Tensor, Tensor, Tensor]
"""Positions of the cells along u, v and z: `w`, `h` and `d`."""


def soft_argmax(
    logits: Float[Tensor, "b jd h w"],
    depth: int,
    cell_origin: CellOrigin = "center",
    implementation: SoftArgmax = "auto",
) -> Float[Tensor, "b j 3"]:
    """Expected u, v, z of each joint in volume units: the volume spans [-0.5, 0.5] along each axis.

    At least float32 inside and out, whatever the logits' type, also under autocast.

    Args:
        logits: `b (j d) h w`, the depth cells of a joint stand together; any memory format.
        depth: depth cells `d` of each joint.
        cell_origin: where cells lie, see `cell_positions`.
        implementation: `auto` takes `flat` inside torch.compile and `reference` outside: each is the faster and the
            lighter one there.
    """
    if implementation == "auto":
        implementation = "flat" if torch.compiler.is_compiling() else "reference"
    dtype = torch.promote_types(logits.dtype, torch.float32)
    height, width = logits.shape[-2:]
    u, v, z = (cell_positions(n, cell_origin, dtype, logits.device) for n in (width, height, depth))
    return IMPLEMENTATIONS[implementation](logits.to(dtype).unflatten(1, (-1, depth)), (u, v, z))


def cell_positions(
    cells: int, cell_origin: CellOrigin, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Float[Tensor, " n"]:
    """Where `n` cells lie on an axis of the volume.

    `center` puts cell i at (i + 0.5) / n - 0.5, so mirroring the cells negates the position; `corner` at i / n - 0.5.
    """
    offset = 0.5 if cell_origin == "center" else 0.0
    return (torch.arange(cells, dtype=dtype, device=device) + offset) / cells - 0.5


def _reference(volume: Float[Tensor, "b j d h w"], axes: Axes) -> Float[Tensor, "b j 3"]:
    """Softmax, then the mean of each axis' marginal. The marginals of v and z share the sum over u."""
    p = volume.flatten(2).softmax(dim=-1).view(volume.shape)
    along_w = p.sum(dim=4)
    marginals = (p.sum(dim=(2, 3)), along_w.sum(dim=2), along_w.sum(dim=3))
    return torch.stack([(m * axis).sum(dim=-1) for m, axis in zip(marginals, axes, strict=True)], dim=-1)


def _flat(volume: Float[Tensor, "b j d h w"], axes: Axes) -> Float[Tensor, "b j 3"]:
    """Four sums over all cells of a joint, which a compiler fuses into one pass; eagerly it is slow.

    Sums and no matrix product: under TF32 that would round the positions to ten bits.
    """
    cells = (2, 3, 4)
    # The shift guards exp; the result does not depend on it, so neither does the gradient.
    e = (volume - volume.detach().amax(dim=cells, keepdim=True)).exp()
    u, v, z = axes
    moments = [(e * axis).sum(dim=cells) for axis in (u, v[:, None], z[:, None, None])]
    return torch.stack(moments, dim=-1) / e.sum(dim=cells)[..., None]


IMPLEMENTATIONS: Final[dict[str, Callable[[Tensor, Axes], Tensor]]] = {"reference": _reference, "flat": _flat}
"""Volumes `b j d h w` of at least float32 and their axes to `b j 3`."""
