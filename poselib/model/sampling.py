"""Cells drawn from heat maps."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


@torch.no_grad()
def draw_cells(
    volume: Float[Tensor, "b j d h w"], draws: int, generator: torch.Generator | None = None
) -> Int[Tensor, "3 b j n"]:
    """Indices w, h, d of `n` cells per joint, drawn independently from the softmax of its logits.

    A plane is drawn by its mass, then a row in it, then a cell in that: each choice is among few, where float32 sums
    are exact enough, while the running sum over a whole volume of them would favour some cells. One sample at a time is
    worked on in float32. Logits that are not finite give some cell and no error.
    """
    batch, joints = volume.shape[:2]
    dtype = torch.promote_types(volume.dtype, torch.float32)
    chances = torch.rand(3, batch, joints, draws, dtype=dtype, device=volume.device, generator=generator)
    joint = torch.arange(joints, device=volume.device)[:, None]
    cells = []
    for logits, chance in zip(volume, chances.unbind(1), strict=True):
        p = logits.flatten(1).softmax(dim=1, dtype=dtype).view(logits.shape)
        rows = p.sum(dim=3)
        d = _draw(rows.sum(dim=2)[:, None], chance[0])
        h = _draw(rows[joint, d], chance[1])
        cells.append(torch.stack([_draw(p[joint, d, h], chance[2]), h, d]))
    return torch.stack(cells, dim=1)


def highest_cells(volume: Float[Tensor, "b j d h w"]) -> Int[Tensor, "3 b j"]:
    """Indices w, h, d of each joint's highest cell; the first one of several."""
    flat = volume.flatten(2).argmax(dim=2)
    height, width = volume.shape[3:]
    return torch.stack([flat % width, flat // width % height, flat // (width * height)])


def _draw(masses: Float[Tensor, "j m n"], chance: Float[Tensor, "j s"]) -> Int[Tensor, "j s"]:
    """The entry of `n` up to which the masses sum to more than a chance in [0, 1) of the whole; `m` is `s` or 1."""
    sums = masses.cumsum(dim=2)
    below = sums <= chance[..., None] * sums[..., -1:]
    # Rounding may take the last chance to the whole sum.
    return below.sum(dim=2).clamp(max=masses.shape[2] - 1)
