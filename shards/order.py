"""Which sample stands at which place of a run: a pure function of (seed, sizes, mixing).

An epoch is a list of slots. Source s owns `per_epoch[s]` of them; the epoch's permutation scatters the slots, and the
source fills its own, one after the other, from its passes: pass p of a source is one permutation of all its samples.
So every sample of a source comes exactly once per pass, whatever the mixing, and place -> sample needs no history.

A pass is either one permutation of everything (`window` 0), or the source's shards are permuted, and the samples of
`window` successive shards at a time: whoever reads from afar then needs no more than that many shards at once.

The epochs follow each other and are cut into micro-batches of a fixed size. Optimiser step t takes the micro-batches
t * m .. (t + 1) * m - 1, where m = global batch / micro-batch; ranks share those out. `last` says what becomes of an
epoch's end that fills no whole global batch:

    wrap    the next epoch goes on in the same batch: nothing is lost or doubled, epochs may end within a batch
    drop    it is left out of this epoch; another permutation leaves out others
    pad     the epoch's first samples fill the batch up

Nothing here knows how many ranks there are, but for `share`, which only deals out.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal

import numpy as np

from poselib.errors import InputError

LastBatch = Literal["wrap", "drop", "pad"]
_BLOCK: Final = 1024


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
    """The order of a run. It keeps the permutations that it needs at the moment, two per source at most.

    Attributes:
        seed: of the permutations.
        sizes: samples of each source.
        per_epoch: slots of each source in an epoch.
        micro: samples of a micro-batch.
        step: samples of an optimiser step over all ranks, a multiple of `micro`; 0 takes `micro`.
        last: what becomes of an epoch's last, partial step.
        window: how many shards are read at a time; 0 for all.
        shard_sizes: samples of each shard of each source, in order; needed with a window.
    """

    seed: int
    sizes: tuple[int, ...]
    per_epoch: tuple[int, ...]
    micro: int
    step: int = 0
    last: LastBatch = "wrap"
    window: int = 0
    shard_sizes: tuple[tuple[int, ...], ...] = ()
    _kept: "OrderedDict[tuple[str, int, int], tuple[np.ndarray, ...]]" = field(
        default_factory=OrderedDict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Refuse empty epochs, and batches that do not fit."""
        sizes = list(self.sizes)
        if len(self.per_epoch) != len(sizes) or min(self.per_epoch, default=0) < 0 or sum(self.per_epoch) < 1:
            raise InputError(f"an epoch needs samples; the mixing gives {list(self.per_epoch)} of {sizes}")
        if any(count and not size for count, size in zip(self.per_epoch, sizes, strict=True)):
            raise InputError(f"every source that is drawn from needs at least one sample; the sources hold {sizes}")
        if self.window and tuple(map(sum, self.shard_sizes)) != self.sizes:
            raise InputError(f"a window needs the sizes of all shards; those given do not add up to {sizes}")
        if self.micro < 1 or self.step % self.micro:
            raise InputError(f"a step must be a multiple of micro-batches of {self.micro}, not {self.step}")
        if not self.epoch_places:
            raise InputError(
                f"an epoch of {self.epoch_size} samples has no whole batch of {self.step or self.micro};"
                " set batch.last to wrap or pad, or take a smaller batch"
            )

    @cached_property
    def epoch_size(self) -> int:
        """Samples that an epoch draws from."""
        return sum(self.per_epoch)

    @cached_property
    def epoch_places(self) -> int:
        """Places that an epoch takes in the run: its size, cut off or filled up as `last` says."""
        step = self.step or self.micro
        whole = self.epoch_size // step * step
        if self.last == "wrap" or whole == self.epoch_size:
            return self.epoch_size
        return whole if self.last == "drop" else whole + step

    def micro_batch(self, index: int) -> Draws:
        """The samples of micro-batch `index`, counted from the run's start."""
        places = np.arange(index * self.micro, (index + 1) * self.micro, dtype=np.int64)
        epochs, slots = np.divmod(places, self.epoch_places)
        slots %= self.epoch_size
        source, drawn = np.empty_like(slots), np.empty_like(slots)
        for run in np.split(np.arange(self.micro), np.flatnonzero(np.diff(slots) != 1) + 1):
            owners, counts = self._keep("slots", 0, int(epochs[run[0]]))
            source[run], drawn[run] = _owned(owners, counts, int(slots[run[0]]), len(run))
        drawn += epochs * np.asarray(self.per_epoch)[source]
        turn, sample = np.divmod(drawn, np.asarray(self.sizes)[source])
        for s in np.unique(source):
            for p in np.unique(turn[source == s]):
                here = (source == s) & (turn == p)
                (permutation,) = self._keep("pass", int(s), int(p))
                sample[here] = permutation[sample[here]]
        return Draws(source, turn, sample)

    def _keep(self, kind: str, source: int, turn: int) -> tuple[np.ndarray, ...]:
        """The slots of an epoch or the permutation of a pass, made once; older ones than the last two go."""
        key = (kind, source, turn)
        if key not in self._kept:
            others = [known for known in self._kept if known[:2] == key[:2]]
            if len(others) > 1:
                del self._kept[others[0]]
            if kind == "slots":
                self._kept[key] = _slots(self.seed, turn, self.per_epoch)
            else:
                shards = self.shard_sizes[source] if self.window else ()
                self._kept[key] = (_permutation(self.seed, source, turn, self.sizes[source], shards, self.window),)
        self._kept.move_to_end(key)
        return self._kept[key]


def slots_per_epoch(sizes: tuple[int, ...], ratios: tuple[float, ...], epoch_of: int = 0) -> tuple[int, ...]:
    """How many samples of each source an epoch takes.

    Args:
        sizes: samples of each source.
        ratios: relative shares. Empty for plain concatenation: every source once.
        epoch_of: with ratios, the source whose one pass is an epoch; the others follow its pace.

    Raises:
        InputError: that source has no share, or there are not as many ratios as sources.
    """
    if not ratios:
        return sizes
    if len(ratios) != len(sizes) or min(ratios) < 0 or not 0 <= epoch_of < len(sizes) or not ratios[epoch_of]:
        raise InputError(f"{len(sizes)} sources cannot be mixed {list(ratios)} in epochs of source {epoch_of}")
    return tuple(round(sizes[epoch_of] * ratio / ratios[epoch_of]) for ratio in ratios)


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


def _slots(seed: int, epoch: int, per_epoch: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Which source owns each slot of an epoch (uint8), and what each source owns before every `_BLOCK`th slot."""
    owners = np.repeat(np.arange(len(per_epoch), dtype=np.uint8), per_epoch)
    if sum(count > 0 for count in per_epoch) > 1:
        _generator(seed, 0, epoch).shuffle(owners)
    starts = np.arange(0, len(owners), _BLOCK)
    each = [np.add.reduceat(owners == source, starts, dtype=np.int64) for source in range(len(per_epoch))]
    return owners, np.cumsum([np.zeros(len(per_epoch), np.int64), *np.stack(each, 1)], axis=0)


def _owned(owners: np.ndarray, counts: np.ndarray, first: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The owners of successive slots, and the how manieth of its owner's each slot is."""
    block = first // _BLOCK
    near = owners[block * _BLOCK : first + length]
    ordinals = np.empty(len(near), np.int64)
    for source, before in enumerate(counts[block]):
        mine = near == source
        ordinals[mine] = before + np.arange(np.count_nonzero(mine))
    return near[-length:], ordinals[-length:]


def _permutation(seed: int, source: int, turn: int, size: int, shard_sizes: tuple[int, ...], window: int) -> np.ndarray:
    """The permutation of one pass of a source: uint32 `size`."""
    generator = _generator(seed, source + 1, turn)
    order = np.arange(size, dtype=np.uint32)
    if window >= len(shard_sizes):
        generator.shuffle(order)
        return order
    pieces = np.split(order, np.cumsum(shard_sizes)[:-1])
    shards = generator.permutation(len(shard_sizes))
    order = np.concatenate([pieces[shard] for shard in shards])
    ends = np.cumsum(np.asarray(shard_sizes)[shards])[window - 1 :: window]
    for piece in np.split(order, ends):
        generator.shuffle(piece)  # a view
    return order


def _generator(*key: int) -> np.random.Generator:
    """Random numbers that depend on the key alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
