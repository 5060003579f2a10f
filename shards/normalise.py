"""Pictures to what every network here takes: its one definition, for training, evaluation, prediction and export."""

import torch
from jaxtyping import Float, UInt8

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, RGB, of values in [0, 1]
STD = (0.229, 0.224, 0.225)


def normalise(
    pictures: UInt8[torch.Tensor, "b h w 3"], gains: Float[torch.Tensor, "b 3"] | None = None
) -> Float[torch.Tensor, "b 3 h w"]:
    """RGB crops, with a gain for each colour channel and a clamp where asked for, normalised as ImageNet's networks
    want it; channels_last without a copy."""
    values = pictures.permute(0, 3, 1, 2).float() / 255
    mean, std = (_per_channel(numbers, values.device) for numbers in (MEAN, STD))
    if gains is not None:
        values = (values * gains[:, :, None, None]).clamp_(0, 1)
    return (values - mean) / std


def _per_channel(numbers: tuple[float, float, float], device: torch.device) -> Float[torch.Tensor, "1 3 1 1"]:
    """Filled on the device: a copy from the host would have it wait for all that is queued on a GPU."""
    return torch.cat([torch.full((1, 1, 1, 1), number, device=device) for number in numbers], 1)
