"""Self-attention over the cells of a feature map, with relative positions along both axes."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

HEADS: Final = 4


class SelfAttention2d(nn.Module):
    """Every cell attends to all others by what they hold and by where they lie.

    Args:
        channels: in and out, a multiple of the four heads.
        cells: side of the square map that the tables of relative positions are made for. On maps of other sizes they
            are interpolated, so the weights of one crop size serve another.
        stride: 2 averages 2x2 cells of the result.

    Source: Srinivas et al., "Bottleneck Transformers for Visual Recognition", 2021, figure 4.
    """

    def __init__(self, channels: int, cells: int, stride: int = 1) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        inner = channels // HEADS
        # Row i of n = 2 * cells - 1 speaks of a cell i - (cells - 1) further on.
        self.rows = nn.Parameter(torch.randn(2 * cells - 1, inner) * inner**-0.5)
        self.columns = nn.Parameter(torch.randn(2 * cells - 1, inner) * inner**-0.5)
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Attend, then pool. The softmax is at least float32."""
        height, width = x.shape[2:]
        query, key, value = self.qkv(x).unflatten(1, (3, HEADS, -1)).unbind(1)
        query = query * query.shape[2] ** -0.5
        by_content = torch.einsum("bnchw,bnckv->bnhwkv", query, key)
        by_row = torch.einsum("bnchw,hkc->bnhwk", query, relative(self.rows, height).to(query.dtype))
        by_column = torch.einsum("bnchw,wvc->bnhwv", query, relative(self.columns, width).to(query.dtype))
        scores = by_content + by_row[..., None] + by_column[..., None, :]
        weights = scores.to(torch.promote_types(scores.dtype, torch.float32)).flatten(4).softmax(dim=4)
        weights = weights.to(value.dtype).view(scores.shape)
        attended = torch.einsum("bnhwkv,bnckv->bnchw", weights, value)
        return self.pool(attended.flatten(1, 2))


def relative(table: Float[Tensor, "n c"], cells: int) -> Float[Tensor, "q k c"]:
    """The table's entry for every query and key of an axis, interpolated where the axis is of another length."""
    if len(table) != 2 * cells - 1:
        table = F.interpolate(table.T[None], 2 * cells - 1, mode="linear", align_corners=True)[0].T
    place = torch.arange(cells, device=table.device)
    return table[place[None, :] - place[:, None] + cells - 1]
