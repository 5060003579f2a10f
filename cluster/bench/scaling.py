"""A training on 1 to 256 GPUs, on paper: what a step would take there, from what it takes on one. No torch here.

A step is its work and what of the exchange is not hidden behind the backward pass. The exchange is a ring within each
node and one between the nodes, each of n members moving 2 (n - 1) / n of the gradients:

    exchange = 2 (g - 1) / g * B / node + 2 (m - 1) / m * B / network + 2 (m - 1) * latency * pieces

for B bytes, g GPUs of each of m nodes. From ZeRO stage 1 on, half as much again follows the update, which nothing can
hide: every rank gathers the parameters that the others have updated, in fp32. (DeepSpeed adds gradients up whole at
these stages too, then each rank keeps its part: `allreduce_and_scatter`.) A compiled backward pass is one graph, which
hands all gradients over at its end: then no exchange hides behind it.

Source of the ring's cost: Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in MPICH",
2005. It leaves out stragglers, jitter and the loader, so it is an upper bound of the efficiency.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from cluster.bench.settings import NetworkSettings

GPUS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ENOUGH: Final = 0.9
"""Efficiency below which the network is said to be the limit."""


@dataclass(frozen=True)
class StepCost:
    """A training step on one GPU, and how it exchanges.

    Attributes:
        images: of one micro-batch.
        forward_s: of one micro-batch.
        backward_s: of one micro-batch.
        optimizer_s: of the update.
        gradients: numbers in the gradient.
        bytes_each: of one of them in the exchange: 4 for fp32, 2 for bf16.
        accumulation: micro-batches of a step.
        overlap: whether the exchange goes on during the last backward pass.
        zero_stage: what DeepSpeed shards over the ranks.
        one_graph: whether the backward pass is compiled into one, whose gradients come all at once.
        bucket_bytes: largest piece of an exchange, in bytes of fp32.
    """

    images: int
    forward_s: float
    backward_s: float
    optimizer_s: float
    gradients: int
    bytes_each: int = 4
    accumulation: int = 1
    overlap: bool = False
    zero_stage: int = 0
    one_graph: bool = False
    bucket_bytes: float = 2e9


@dataclass(frozen=True)
class Prediction:
    """A step on some GPUs.

    Attributes:
        gpus: how many.
        step_s: the whole step.
        exposed_s: of it, waiting for the exchange.
        images_per_s: of all GPUs.
        efficiency: images/s, of as many times one GPU's.
    """

    gpus: int
    step_s: float
    exposed_s: float
    images_per_s: float
    efficiency: float


def exchange_s(cost: StepCost, gpus: int, network: NetworkSettings) -> float:
    """Seconds that adding the gradients up over all GPUs takes by itself."""
    pieces = max(1, math.ceil(cost.gradients * 4 / cost.bucket_bytes))
    return 2 * _ring_s(cost.gradients * cost.bytes_each, gpus, network, pieces)


def gather_s(cost: StepCost, gpus: int, network: NetworkSettings) -> float:
    """Seconds of gathering the updated parameters, which are fp32 whatever the gradients are."""
    return _ring_s(4 * cost.gradients, gpus, network, 1) if cost.zero_stage else 0.0


def predict(cost: StepCost, gpus: int, network: NetworkSettings) -> Prediction:
    """A step on that many GPUs."""
    work = cost.accumulation * (cost.forward_s + cost.backward_s) + cost.optimizer_s
    hidden = cost.backward_s if cost.overlap and not cost.one_graph else 0.0
    exposed = max(0.0, exchange_s(cost, gpus, network) - hidden) + gather_s(cost, gpus, network)
    images = cost.images * cost.accumulation * gpus
    return Prediction(gpus, work + exposed, exposed, images / (work + exposed), work / (work + exposed))


def settings_that_help(cost: StepCost) -> dict[str, StepCost]:
    """The same step with each setting that could relieve the network."""
    changed = {"engine.exchange bf16": replace(cost, bytes_each=2)}
    if not cost.one_graph:
        changed["engine.zero_stage 1 with engine.overlap"] = replace(
            cost, zero_stage=max(1, cost.zero_stage), overlap=True
        )
    changed["batch.global twice as large"] = replace(cost, accumulation=2 * cost.accumulation)
    return {name: other for name, other in changed.items() if other != cost}


def _ring_s(size: float, gpus: int, network: NetworkSettings, pieces: int) -> float:
    """Seconds until every GPU has a part of `size` bytes from each other one: within the nodes, then between them."""
    within, nodes = min(gpus, network.gpus_per_node), math.ceil(gpus / network.gpus_per_node)
    ring = (within - 1) / within * size / (1e9 * network.node_gb_per_s)
    between = (nodes - 1) / nodes * size / (1e9 * network.network_gb_per_s)
    return ring + between + (nodes - 1) * network.latency_us * 1e-6 * pieces


def limit(cost: StepCost, network: NetworkSettings, gpus: Sequence[int] = GPUS) -> str:
    """One sentence: from how many GPUs on the network is the limit, and which setting moves it furthest."""
    slow = [each for each in gpus if predict(cost, each, network).efficiency < ENOUGH]
    if not slow:
        least = predict(cost, gpus[-1], network).efficiency
        return f"up to {gpus[-1]} GPUs the network is no limit: efficiency {least:.0%} there"
    now = predict(cost, slow[0], network).efficiency
    sentence = f"from {slow[0]} GPUs on the network is the limit: efficiency {now:.0%}"
    for number in dict.fromkeys((slow[0], slow[-1])):
        moved = {name: predict(other, number, network).efficiency for name, other in settings_that_help(cost).items()}
        best = max(moved, key=lambda name: moved[name])
        before = predict(cost, number, network).efficiency
        sentence += f"; at {number} {best} moves it furthest, from {before:.0%} to {moved[best]:.0%}"
    return sentence
