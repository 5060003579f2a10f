"""The order: every sample once per pass, the same sequence for every world, no history needed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poselib.errors import InputError
from shards.order import Draws, Order, share, slots_per_epoch

pytestmark = pytest.mark.unit

LAST = ("wrap", "drop", "pad")
few = st.lists(st.integers(0, 60), min_size=1, max_size=4).map(tuple).filter(any)
many = st.lists(st.integers(0, 10**5), min_size=1, max_size=4).map(tuple).filter(any)


def joined(batches) -> np.ndarray:
    """Micro-batches one after the other: `n 3` of source, pass, sample."""
    columns = [np.stack([d.source, d.turn, d.sample], 1) for d in batches]
    return np.concatenate([np.empty((0, 3), np.int64), *columns])


def draw(order: Order, first: int, last: int) -> np.ndarray:
    return joined(order.micro_batch(index) for index in range(first, last))


def all_samples(sizes, turn: int) -> list[list[int]]:
    return [[source, turn, sample] for source, size in enumerate(sizes) for sample in range(size)]


@st.composite
def whole_runs(draw_, sizes=few):
    """An order, with windows or without, and a world that fits it."""
    chosen = draw_(sizes)
    world, each = draw_(st.integers(1, 64)), draw_(st.integers(1, 3))
    if draw_(st.booleans()):
        # The first source may be empty: the epoch follows one that is not.
        epoch_of = max(range(len(chosen)), key=lambda s: chosen[s])
        ratios = tuple(draw_(st.sampled_from([1.0, 0.3, 2.7])) if size else 0.0 for size in chosen)
        if sum(chosen) > 1000:  # a handful of passes, not thousands, of a source that is tiny beside another
            ratios = tuple(ratio * size for ratio, size in zip(ratios, chosen, strict=True))
        per_epoch = slots_per_epoch(chosen, ratios, epoch_of)
    else:
        per_epoch = slots_per_epoch(chosen, ())
    # At most some 200 steps per epoch, whatever its size.
    micro = max(draw_(st.integers(1, 9)), -(-sum(per_epoch) // (200 * world * each)))
    cuts = [sorted(draw_(st.lists(st.integers(0, size), max_size=12))) for size in chosen]
    shards = tuple(tuple(np.diff([0, *cut, size]).tolist()) for cut, size in zip(cuts, chosen, strict=True))
    last = draw_(st.sampled_from(LAST if sum(per_epoch) >= micro * world * each else ("wrap", "pad")))
    window = draw_(st.integers(0, 5))
    order = Order(
        draw_(st.integers(0, 5)), chosen, per_epoch, micro, micro * world * each, last, window, shards if window else ()
    )
    return order, world


def steps_of_an_epoch(order: Order) -> int:
    return -(-order.epoch_places // order.step)


def dealt(order: Order, world: int, first: int, last: int) -> list[list[int]]:
    """Each rank's micro-batches of steps `first` to `last`."""
    per_step = order.step // order.micro
    return [[i for step in range(first, last) for i in share(step, per_step, rank, world)] for rank in range(world)]


@given(whole_runs(many), st.data())
@settings(max_examples=25, deadline=None)
def test_ranks_share_every_epoch_without_loss_or_overlap_at_any_size(case, data):
    order, world = case
    steps = steps_of_an_epoch(order)
    ranks = dealt(order, world, 0, steps)
    assert len({len(rank) for rank in ranks}) == 1
    indices = sorted(index for rank in ranks for index in rank)
    assert indices == list(range(steps * order.step // order.micro))
    sequence = draw(order, 0, len(indices))
    # Resumed at any step, by a world of any other size, the sequence's tail follows.
    start = data.draw(st.integers(0, steps - 1))
    per_step = order.step // order.micro
    other = data.draw(st.sampled_from([size for size in range(1, 65) if per_step % size == 0]))
    fresh = replace(order)
    left = sorted(i for rank in dealt(order, other, start, min(steps, start + 3)) for i in rank)
    np.testing.assert_array_equal(
        joined(fresh.micro_batch(i) for i in left), sequence[start * order.step :][: len(left) * order.micro]
    )


@given(whole_runs(many))
@settings(max_examples=20, deadline=None)
def test_every_sample_comes_exactly_once_per_pass_at_any_size(case):
    order, _ = case
    order = replace(order, last="wrap")
    sequence = draw(order, 0, 2 * order.epoch_size // order.micro)
    for source, size in enumerate(order.sizes):
        mine = sequence[sequence[:, 0] == source]
        assert len(np.unique(mine[:, 1] * size + mine[:, 2])) == len(mine)
        assert np.all((mine[:, 2] >= 0) & (mine[:, 2] < size))
        assert np.all(np.bincount(mine[:, 1])[:-1] == size)
        assert np.all(np.diff(mine[:, 1]) >= 0)


@given(few, st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_concatenation_gives_every_sample_once_per_epoch(sizes, micro, seed):
    order = Order(seed, sizes, slots_per_epoch(sizes, ()), micro)
    sequence = draw(order, 0, -(-3 * order.epoch_size // micro))
    for epoch in range(3):
        part = sequence[epoch * order.epoch_size : (epoch + 1) * order.epoch_size]
        assert sorted(part.tolist()) == all_samples(sizes, epoch)


@given(whole_runs())
@settings(max_examples=60, deadline=None)
def test_the_last_partial_step_is_wrapped_dropped_or_padded(case):
    order, _ = case
    size, step = order.epoch_size, order.step
    wrapped = draw(replace(order, last="wrap", step=order.micro), 0, -(-3 * size // order.micro))
    epochs = [wrapped[epoch * size : (epoch + 1) * size] for epoch in range(3)]
    if order.last == "drop":
        epochs = [epoch[: size // step * step] for epoch in epochs]
    elif order.last == "pad":
        epochs = [np.tile(epoch, (1 + -(-step // size), 1))[: -(-size // step) * step] for epoch in epochs]
    expected = np.concatenate(epochs)
    assert len(expected) == 3 * order.epoch_places
    assert order.last == "wrap" or order.epoch_places % step == 0
    found = draw(order, 0, len(expected) // order.micro)
    np.testing.assert_array_equal(found, expected[: len(found)])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 8), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_window_never_reads_from_more_shards_than_it_holds(shards, window, seed):
    size = sum(shards)
    if not size:
        return
    order = Order(seed, (size,), (size,), 1, window=window, shard_sizes=(tuple(shards),))
    shard_of = np.repeat(np.arange(len(shards)), shards)
    for turn in range(2):
        samples = draw(order, turn * size, (turn + 1) * size)[:, 2]
        assert sorted(samples) == list(range(size))
        visited = shard_of[samples]
        spans = [np.flatnonzero(visited == shard) for shard in np.unique(visited)]
        open_at_once = [sum(span[0] <= place <= span[-1] for span in spans) for place in range(size)]
        assert max(open_at_once) <= window


def test_a_window_mixes_its_shards_and_permutes_them_anew():
    order = Order(0, (400,), (400,), 400, window=4, shard_sizes=((50,) * 8,))
    first, second = (order.micro_batch(epoch).sample // 50 for epoch in range(2))
    assert len(set(first[:20])) == 4
    assert set(first[:200]) != set(second[:200])
    full = replace(order, window=8)
    assert len(set(full.micro_batch(0).sample[:200] // 50)) == 8
    np.testing.assert_array_equal(full.micro_batch(0).sample, Order(0, (400,), (400,), 400).micro_batch(0).sample)


def test_an_epoch_follows_the_source_that_defines_it():
    assert slots_per_epoch((100, 40), ()) == (100, 40)
    assert slots_per_epoch((100, 40), (1.0, 1.0)) == (100, 100)
    assert slots_per_epoch((100, 40), (1.0, 1.0), epoch_of=1) == (40, 40)
    assert slots_per_epoch((100, 40, 7), (2.0, 1.0, 0.5)) == (100, 50, 25)
    with pytest.raises(InputError, match="cannot be mixed"):
        slots_per_epoch((100, 40), (1.0, 0.0), epoch_of=1)
    with pytest.raises(InputError, match="cannot be mixed"):
        slots_per_epoch((100, 40), (1.0,))


def test_a_world_that_does_not_fit_is_told_which_would():
    with pytest.raises(InputError, match=r"worlds that fit: \[1, 2, 3, 6\]"):
        share(0, 6, 0, 4)


def test_seeds_and_passes_differ():
    first, other = Order(1, (50,), (50,), 50), Order(2, (50,), (50,), 50)
    np.testing.assert_array_equal(draw(first, 0, 1), draw(Order(1, (50,), (50,), 50), 0, 1))
    assert (draw(first, 0, 1)[:, 2] != draw(other, 0, 1)[:, 2]).any()
    assert (draw(first, 0, 1)[:, 2] != draw(first, 1, 2)[:, 2]).any()


def test_what_holds_no_samples_is_refused():
    with pytest.raises(InputError, match="at least one sample"):
        Order(0, (5, 0), (5, 5), 2)
    with pytest.raises(InputError, match="an epoch needs samples"):
        Order(0, (5, 0), (0, 0), 2)
    with pytest.raises(InputError, match=r"no whole batch of 6; set batch\.last"):
        Order(0, (5,), (5,), 2, 6, "drop")
    with pytest.raises(InputError, match="sizes of all shards"):
        Order(0, (5,), (5,), 2, window=2, shard_sizes=((2, 2),))


def test_micro_batches_are_far_jumps_too():
    order = Order(3, (1000, 70), (1000, 70), 8)
    far: Draws = order.micro_batch(10**9)
    assert far.sample.shape == (8,)
    assert np.all(far.turn == far.turn[0]) or np.all(np.diff(np.unique(far.turn)) == 1)


def test_only_the_permutations_of_the_moment_are_kept():
    order = Order(0, (1000,), (1000,), 100)
    for index in range(100):
        order.micro_batch(index)
    assert sum(array.nbytes for kept in order._kept.values() for array in kept) <= 2 * (1000 * 4 + 1000 * 5)
