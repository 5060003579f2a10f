"""Which sample stands at which place of a run: a pure function of (seed, sizes, mixing).

An epoch is a list of slots. Source s owns `per_epoch[s]` of them; the epoch's permutation scatters the slots, and the
source fills its own, one after the other, from its passes: pass p of a source is one permutation of all its samples.
So every sample of a source comes exactly once per pass, whatever the mixing, and place -> sample needs no history.

The epochs follow each other without a gap and are cut into micro-batches of a fixed size; a micro-batch may span two
epochs, so none is partial and no sample is lost. Optimiser step t takes the micro-batches t * m .. (t + 1) * m - 1,
where m = global batch / micro-batch; ranks share those out. Nothing here knows how many ranks there are, but for
`share`, which only deals out.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from poselib.errors import InputError


@dataclass(frozen=True)
class Draws:
    """Where a micro-batch's samples come from: int64 arrays `b`.

    Attributes:
        source: index of the source.
        turn: how many passes of that source came before.
        sample: position among the source's samples, below its size.
    """

    source: np.ndarray
    turn: np.ndarray
    sample: np.ndarray


@dataclass(frozen=True)
class Order:
    """The order of a run.

    Attributes:
        seed: of the permutations.
        sizes: samples of each source.
        per_epoch: slots of each source in an epoch.
        micro: samples of a micro-batch.
    """

    seed: int
    sizes: tuple[int, ...]
    per_epoch: tuple[int, ...]
    micro: int

    def __post_init__(self) -> None:
        """Refuse empty sources and batches."""
        if not self.sizes or min(self.sizes) < 1:
            raise InputError(f"every source needs at least one sample; the sources hold {list(self.sizes)}")
        if len(self.per_epoch) != len(self.sizes) or min(self.per_epoch) < 0 or sum(self.per_epoch) < 1:
            raise InputError(f"an epoch needs samples; the mixing gives {list(self.per_epoch)} of {list(self.sizes)}")

    @property
    def epoch_size(self) -> int:
        """Samples of an epoch."""
        return sum(self.per_epoch)

    def micro_batch(self, index: int) -> Draws:
        """The samples of micro-batch `index`, counted from the run's start."""
        places = np.arange(index * self.micro, (index + 1) * self.micro, dtype=np.int64)
        epochs, slots = np.divmod(places, self.epoch_size)
        source, drawn = np.empty_like(slots), np.empty_like(slots)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            owners, ordinals = _slots(self.seed, int(epoch), self.per_epoch)
            source[here], drawn[here] = owners[slots[here]], ordinals[slots[here]]
        drawn += epochs * np.asarray(self.per_epoch)[source]
        turn, sample = np.divmod(drawn, np.asarray(self.sizes)[source])
        for s, p in {(int(s), int(p)) for s, p in zip(source, turn, strict=True)}:
            here = (source == s) & (turn == p)
            sample[here] = _permutation(self.seed, s, p, self.sizes[s])[sample[here]]
        return Draws(source, turn, sample)


def slots_per_epoch(sizes: tuple[int, ...], ratios: tuple[float, ...]) -> tuple[int, ...]:
    """How many samples of each source an epoch takes.

    Args:
        sizes: samples of each source.
        ratios: relative shares; the first source is passed once per epoch and the others follow its pace. Empty for
            plain concatenation: every source once.
    """
    if not ratios:
        return sizes
    return tuple(round(sizes[0] * ratio / ratios[0]) for ratio in ratios)


def share(step: int, micro_per_step: int, rank: int, world_size: int) -> list[int]:
    """The micro-batches of optimiser step `step` that `rank` computes, in order.

    Raises:
        InputError: the world does not divide the step.
    """
    if micro_per_step % world_size:
        fitting = [size for size in range(1, micro_per_step + 1) if micro_per_step % size == 0]
        raise InputError(
            f"{world_size} ranks cannot share the {micro_per_step} micro-batches of a step; worlds that fit: {fitting}"
        )
    return list(range(step * micro_per_step + rank, (step + 1) * micro_per_step, world_size))


@lru_cache(maxsize=2)
def _slots(seed: int, epoch: int, per_epoch: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Which source owns each slot of an epoch (uint8), and the how manieth of that source's it is (uint32)."""
    owners = np.repeat(np.arange(len(per_epoch), dtype=np.uint8), per_epoch)
    _generator(seed, 0, epoch).shuffle(owners)
    ordinals = np.empty(len(owners), np.uint32)
    for source, count in enumerate(per_epoch):
        ordinals[owners == source] = np.arange(count, dtype=np.uint32)
    return owners, ordinals


@lru_cache(maxsize=8)
def _permutation(seed: int, source: int, turn: int, size: int) -> np.ndarray:
    """The permutation of one pass of a source: uint32 `size`."""
    order = np.arange(size, dtype=np.uint32)
    _generator(seed, source + 1, turn).shuffle(order)
    return order


def _generator(*key: int) -> np.random.Generator:
    """Random numbers that depend on the key alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
