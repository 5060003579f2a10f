"""What a training step has to do at least: operations, and the time of its layers at a device's ceilings.

The layer roofline gives every layer the larger of its operations at the peak rate and its bytes at the memory's rate.
Per picture, with activations in two bytes (bf16) or four, and n the numbers in a tensor:

    convolution       forward, gradient of the input, gradient of the weights: each reads two tensors and writes one
    BatchNorm, ReLU   fused: 3 n forward (statistics; read, write), 5 n backward (sums; two reads, one write)
    residual sum      fused into that: one more read forward, one more write backward
    eagerly           5 n more for each ReLU, 6 n for each sum instead
    soft-argmax       logits read twice, their gradient written once
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from poselib.model.backbone import BasicBlock, Bottleneck
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings

_BATCH = 2


@dataclass(frozen=True)
class Work:
    """Of one picture, forward and backward.

    Attributes:
        flops: operations; a multiply-add is two.
        parameters: of the network.
        layers: operations and numbers moved, of each pass of each layer; BatchNorm and ReLU fused.
        eager: numbers moved besides where they are not.
    """

    flops: float
    parameters: int
    layers: tuple[tuple[float, float], ...]
    eager: float

    def roofline_s(self, flops_per_s: float, bytes_per_s: float, bytes_each: int, fused: bool = True) -> float:
        """Seconds per picture with every layer at its ceiling."""
        fast = sum(max(flops / flops_per_s, bytes_each * moved / bytes_per_s) for flops, moved in self.layers)
        return fast + (0.0 if fused else bytes_each * self.eager / bytes_per_s)


def work_of(settings: ModelSettings) -> Work:
    """Count on the meta device: nothing is computed."""
    layers: list[tuple[float, float]] = []
    eager = [0.0]

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        before, after = inputs[0].numel() / _BATCH, output.numel() / _BATCH
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            flops = _flops(module, before, after)
            layers.extend([(flops, before + after)] * (3 if inputs[0].shape[1] > 3 else 2))
        elif isinstance(module, nn.BatchNorm2d):
            layers.append((0.0, 8 * after))
        elif isinstance(module, nn.ReLU):
            eager[0] += 5 * after
        elif isinstance(module, nn.MaxPool2d):
            layers.append((0.0, 2 * (before + after)))
        elif isinstance(module, BasicBlock | Bottleneck):
            layers.append((0.0, 2 * after))
            eager[0] += 4 * after

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = PoseNetwork(settings)
        for module in network.modules():
            module.register_forward_hook(note)
        images = torch.randn(_BATCH, 3, settings.crop_height, settings.crop_width)
        if settings.head == "regression":
            network(images).sum().backward()
        else:
            logits = network.heatmap_logits(images)
            logits.sum().backward()
            # The last convolution is called as a function, which no hook sees.
            cells = logits.numel() / _BATCH
            width = settings.decoder_channels
            features = cells / logits.shape[1] * width
            layers.extend([(2 * cells * width, cells + features)] * 3)
            layers.append((0.0, 3 * cells))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Work(counter.get_total_flops() / _BATCH, parameters, tuple(layers), eager[0])


def _flops(conv: nn.Conv2d | nn.ConvTranspose2d, before: float, after: float) -> float:
    """Of one pass, per picture: each number of the coarser side meets the whole kernel."""
    taps = conv.kernel_size[0] * conv.kernel_size[1]
    if isinstance(conv, nn.ConvTranspose2d):
        return 2 * before * taps * conv.out_channels
    return 2 * after * taps * conv.in_channels
