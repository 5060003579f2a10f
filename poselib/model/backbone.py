"""ResNet feature extractors with torchvision's state-dict keys, so that its ImageNet weights load as they are.

BoTNet-50 is ResNet-50 but for the last stage's 3x3 convolutions; all it shares with ResNet-50 has the same keys.
"""

from typing import Final

from jaxtyping import Float
from torch import Tensor, nn

from poselib.model.attention import SelfAttention2d
from poselib.settings import Backbone

STAGES: Final[dict[Backbone, tuple[int, int, int, int]]] = {
    "resnet10": (1, 1, 1, 1),
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "botnet50": (3, 4, 6, 3),
}
"""Residual blocks per stage. Source: He et al., "Deep Residual Learning for Image Recognition", 2016, table 1."""
ATTENTION_CELLS: Final = 16
"""Side of the map that the first attention sees at 256 px, where BoTNet's tables of relative positions are made."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: `b c h w` to `b width h/stride w/stride`."""

    expansion: Final = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Float[Tensor, "b in h w"]) -> Float[Tensor, "b out h2 w2"]:
        """Add the residual to the shortcut."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return self.relu(residual + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut: `b c h w` to `b 4*width h/stride w/stride`.

    The stride sits in the 3x3 convolution, where torchvision's weights were trained with it. With `attention`,
    self-attention takes that convolution's place and strides by average pooling behind it.

    Source of the latter: Srinivas et al., "Bottleneck Transformers for Visual Recognition", 2021, section 3.
    """

    expansion: Final = 4

    def __init__(self, in_channels: int, width: int, stride: int, attention: bool = False) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2: nn.Module = (
            SelfAttention2d(width, ATTENTION_CELLS if stride > 1 else ATTENTION_CELLS // 2, stride)
            if attention
            else nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        )
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Float[Tensor, "b in h w"]) -> Float[Tensor, "b out h2 w2"]:
        """Add the residual to the shortcut."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return self.relu(residual + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A ResNet or BoTNet without its pooling and classifier.

    Args:
        name: which of the published depths.
        width: channels behind the stem, 64 as published; stages have 1, 2, 4 and 8 times as many (bottlenecks 4
            times that again).

    Attributes:
        out_channels: channels of the feature map.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, name: Backbone, width: int = 64) -> None:
        super().__init__()
        block = BasicBlock if name in ("resnet10", "resnet18", "resnet34") else Bottleneck
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = width
        for stage, blocks in enumerate(STAGES[name]):
            inner, strides = width * 2**stage, [1 if stage == 0 else 2] + [1] * (blocks - 1)
            layers: list[nn.Module] = []
            for stride in strides:
                if name == "botnet50" and stage == 3:
                    layers.append(Bottleneck(channels, inner, stride, attention=True))
                else:
                    layers.append(block(channels, inner, stride))
                channels = inner * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.out_channels = channels
        self._initialise()

    def _initialise(self) -> None:
        """Kaiming normal by fan-out, as torchvision; BatchNorm starts at 1 and 0 by itself."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h32 w32"]:
        """Pictures to features at stride 32."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """A projecting shortcut where the shape changes, else None: the input itself."""
    if stride == 1 and in_channels == out_channels:
        return None
    conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
