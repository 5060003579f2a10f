"""BatchNorm's running statistics, which every rank gathers from its own samples, made one."""

import torch
import torch.distributed as dist
from torch import nn


@torch.no_grad()
def combine_statistics(model: nn.Module, world_size: int) -> None:
    """Replace each rank's running statistics by their mean over the ranks, in float32 and in the order of ranks.

    Before every validation and every save, so that all ranks score and store the same model.
    """
    if world_size == 1:
        return
    buffers = [
        buffer
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for buffer in (module.running_mean, module.running_var)
        if buffer is not None
    ]
    if not buffers:
        return
    flat = torch.cat([buffer.float().flatten() for buffer in buffers])
    gathered = [torch.empty_like(flat) for _ in range(world_size)]
    dist.all_gather(gathered, flat)
    mean = torch.stack(gathered).mean(0)
    for buffer, part in zip(buffers, mean.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))
