"""BatchNorm's running statistics, the same whatever the number of ranks.

They are defined on the run's micro-batches in their global order: a step has k of them, and each moves the statistics
by a momentum m' = 1 - (1 - m)^(1/k), so that a step together moves them by BatchNorm's own momentum m:

    r <- (1 - m') r + m' s        s: mean and variance of a micro-batch

A rank sees only every W-th of them. With the momentum 1 - (1 - m')^W per micro-batch of its own, which is
1 - (1 - m)^(1/a) for a = k / W micro-batches per step and rank, old statistics fade as they should; and as all of this
is linear, the sum of the ranks' statistics, weighted by (1 - m')^(W - 1 - rank) and normed to 1, is exactly r. The sum
may be taken at any time and any number of times: nothing is exchanged but before a validation or a save.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn

_Norm = nn.modules.batchnorm._BatchNorm


def share_momentum(model: nn.Module, accumulation: int) -> None:
    """Set the momentum of a rank that sees `accumulation` micro-batches per step; once, on a new model."""
    for norm in _norms(model):
        if norm.momentum is not None:
            norm.momentum = 1 - (1 - norm.momentum) ** (1 / accumulation)


@torch.no_grad()
def combine_statistics(model: nn.Module, world_size: int, seen: int) -> None:
    """Replace each rank's running statistics by those of the whole run.

    Before every validation and every save, so that all ranks score and store the same model.

    Args:
        model: its momenta set by `share_momentum`.
        world_size: ranks; all take part.
        seen: micro-batches of the run so far, over all ranks.
    """
    buffers: list[tuple[torch.Tensor, float | None]] = []
    for norm in _norms(model):
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.fill_(seen)
        buffers += [(b, norm.momentum) for b in (norm.running_mean, norm.running_var) if b is not None]
    if world_size == 1 or not buffers:
        return
    flat = torch.cat([buffer.float().flatten() for buffer, _ in buffers])
    gathered = [torch.empty_like(flat) for _ in range(world_size)]
    dist.all_gather(gathered, flat)
    by_buffer = torch.stack(gathered).double().split([buffer.numel() for buffer, _ in buffers], dim=1)
    for (buffer, momentum), of_ranks in zip(buffers, by_buffer, strict=True):
        weights = torch.tensor(_weights(momentum, world_size), device=of_ranks.device, dtype=torch.float64)
        buffer.copy_((weights @ of_ranks).view_as(buffer))


def _weights(momentum: float | None, world_size: int) -> list[float]:
    """What each rank's statistics count, where `momentum` is a rank's per micro-batch of its own; they sum to 1."""
    fade = 1.0 if momentum is None else (1 - momentum) ** (1 / world_size)
    raw = [fade ** (world_size - 1 - rank) for rank in range(world_size)]
    return [weight / sum(raw) for weight in raw]


def _norms(model: nn.Module) -> Iterator[_Norm]:
    return (module for module in model.modules() if isinstance(module, _Norm))
