"""From features to a heat map volume per joint."""

from jaxtyping import Float
from torch import Tensor, nn

INIT_STD = 0.001
"""Spread of the initial weights: nearly flat heat maps, so every joint starts at the volume's centre."""


class Decoder(nn.Module):
    """Transposed convolutions that double the resolution each, then one score per joint and depth cell.

    Args:
        in_channels: channels of the features.
        channels: channels of each transposed convolution.
        layers: how many there are.
        joints: joints.
        depth: cells of each joint's volume along z.

    Source: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", 2018, with the volume of Sun et
    al., "Integral Human Pose Regression", 2018.
    """

    def __init__(self, in_channels: int, channels: int, layers: int, joints: int, depth: int) -> None:
        super().__init__()
        stack: list[nn.Module] = []
        for layer in range(layers):
            inputs = in_channels if layer == 0 else channels
            upsample = nn.ConvTranspose2d(inputs, channels, 4, stride=2, padding=1, bias=False)
            stack += [upsample, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        self.upsampling = nn.Sequential(*stack)
        self.head = nn.Conv2d(channels if layers else in_channels, joints * depth, 1)
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
                nn.init.normal_(module.weight, std=INIT_STD)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b jd h2 w2"]:
        """Logits `b (j d) h w`: for every joint, its depth cells stand together along the channels."""
        return self.head(self.upsampling(features))
