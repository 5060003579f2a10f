"""From features to a heat map volume per joint, or to coordinates at once."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

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
        temperature: divides the scores.

    Source: Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", 2018, with the volume of Sun et
    al., "Integral Human Pose Regression", 2018.
    """

    def __init__(
        self, in_channels: int, channels: int, layers: int, joints: int, depth: int, *, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.temperature = temperature
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
        return F.conv2d(self.upsampling(features), *self.projection())

    def projection(self) -> tuple[Float[Tensor, "jd c 1 1"], Float[Tensor, " jd"]]:
        """Weight and bias of the last 1x1 convolution, over the temperature: cheaper there than on all cells."""
        weight, bias = self.head.weight, self.head.bias
        assert bias is not None
        return (weight, bias) if self.temperature == 1 else (weight / self.temperature, bias / self.temperature)


class Regressor(nn.Module):
    """Coordinates from the mean over all cells by one linear layer: the control that has no heat maps."""

    def __init__(self, channels: int, joints: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels, joints * 3)
        nn.init.normal_(self.head.weight, std=INIT_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b j 3"]:
        """u, v, z in volume units, at least float32."""
        answer = self.head(features.mean(dim=(2, 3))).unflatten(1, (-1, 3))
        return answer.float() if answer.dtype.itemsize < 4 else answer
