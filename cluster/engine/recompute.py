"""Activation checkpointing: a residual block keeps its input alone and runs again for its gradient."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from poselib.model.backbone import BasicBlock, Bottleneck

_Norm = nn.modules.batchnorm._BatchNorm


def recompute_blocks(model: nn.Module) -> None:
    """Have every residual block of a model run twice in training; its state keeps its names."""
    for block in model.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            block.forward = partial(_forward, block)  # type: ignore[method-assign]


def _forward(block: BasicBlock | Bottleneck, x: Float[Tensor, "b in h w"]) -> Float[Tensor, "b out h2 w2"]:
    plain = partial(type(block).forward, block)  # type: ignore[arg-type]
    if not (block.training and torch.is_grad_enabled()):
        return plain(x)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _second_time(block)

    return checkpoint(plain, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


@contextmanager
def _second_time(block: nn.Module) -> Iterator[None]:
    """Leave the running statistics alone: the same pictures must not move them twice."""
    norms = [module for module in block.modules() if isinstance(module, _Norm)]
    before = [
        (norm.momentum, None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone())
        for norm in norms
    ]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, seen) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and seen is not None:
                norm.num_batches_tracked.copy_(seen)
