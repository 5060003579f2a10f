"""Pyramid pooling: what the whole picture shows, at several scales, beside every cell of the feature map."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class PyramidPooling(nn.Module):
    """Pool to each of `bins`, project, upsample and stand behind the input channels.

    Args:
        in_channels: channels of the feature map.
        bins: cells per side of each level. More cells than the feature map has are allowed: pooling repeats then.
        channels: output channels of the pyramid, shared evenly among the levels (rounded down).

    Attributes:
        out_channels: channels of the output, the input's included.

    Raises:
        ValueError: no bins, or more than channels.

    Source: Zhao et al., "Pyramid Scene Parsing Network", 2017, section 3.2.
    """

    def __init__(self, in_channels: int, bins: tuple[int, ...], channels: int) -> None:
        super().__init__()
        if not 1 <= len(bins) <= channels:
            raise ValueError(f"a pyramid of {channels} channels must have 1 to {channels} bins, not {len(bins)}")
        per_level = channels // len(bins)
        self.levels = nn.ModuleList(PyramidLevel(in_channels, count, per_level) for count in bins)
        self.out_channels = in_channels + per_level * len(bins)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        """Features with the pyramid's channels behind their own."""
        return torch.cat([features, *(level(features) for level in self.levels)], dim=1)


class PyramidLevel(nn.Module):
    """One level: average to `bins` x `bins` cells, 1x1 convolution, BatchNorm, ReLU, back to the input's size."""

    def __init__(self, in_channels: int, bins: int, channels: int) -> None:
        super().__init__()
        self.bins = bins
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm = PooledBatchNorm2d(channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h w"]:
        """What this level sees, at the input's resolution."""
        pooled = F.adaptive_avg_pool2d(features, self.bins)
        pooled = F.relu(self.norm(self.conv(pooled)))
        return F.interpolate(pooled, features.shape[-2:], mode="bilinear", align_corners=False)


class PooledBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that also trains on one value per channel: one sample, pooled to one cell.

    Such a batch has no variance, and torch refuses it. It is normalised by the running statistics instead, which
    it leaves as they are.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise `b c h w`."""
        if input.shape[0] * input.shape[2] * input.shape[3] > 1:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
