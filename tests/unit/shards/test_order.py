"""The order: every sample once per pass, the same sequence for every world, no history needed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poselib.errors import InputError
from shards.order import Order, share, slots_per_epoch

pytestmark = pytest.mark.unit

sizes = st.lists(st.integers(1, 60), min_size=1, max_size=4).map(tuple)


def draw(order: Order, first: int, last: int) -> list[tuple[int, int, int]]:
    """Micro-batches `first` to `last` as a list of (source, pass, sample)."""
    batches = [order.micro_batch(index) for index in range(first, last)]
    return [place for d in batches for place in zip(d.source.tolist(), d.turn.tolist(), d.sample.tolist(), strict=True)]


@given(sizes, st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_concatenation_gives_every_sample_once_per_epoch(sizes, micro, seed):
    order = Order(seed, sizes, slots_per_epoch(sizes, ()), micro)
    epochs = 3
    sequence = draw(order, 0, -(-epochs * order.epoch_size // micro))
    for epoch in range(epochs):
        part = sequence[epoch * order.epoch_size : (epoch + 1) * order.epoch_size]
        expected = [(source, epoch, sample) for source, size in enumerate(sizes) for sample in range(size)]
        assert sorted(part) == expected


@given(sizes, st.integers(1, 9), st.floats(0.2, 5), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_any_ratio_gives_every_sample_once_per_pass(sizes, micro, ratio, seed):
    order = Order(seed, sizes, slots_per_epoch(sizes, (1.0,) + (ratio,) * (len(sizes) - 1)), micro)
    sequence = draw(order, 0, -(-4 * order.epoch_size // micro))
    for source, size in enumerate(sizes):
        mine = [(turn, sample) for s, turn, sample in sequence if s == source]
        assert len(set(mine)) == len(mine)
        for turn in range(max((t for t, _ in mine), default=0)):
            assert sorted(sample for t, sample in mine if t == turn) == list(range(size))
    assert sum(s == 0 for s, *_ in sequence[: order.epoch_size]) == sizes[0]


@given(st.integers(1, 64), st.integers(1, 4), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_ranks_share_a_step_without_loss_or_overlap(world_size, each, step):
    per_step = world_size * each
    dealt = [share(step, per_step, rank, world_size) for rank in range(world_size)]
    assert sorted(index for part in dealt for index in part) == list(range(step * per_step, (step + 1) * per_step))
    assert {len(part) for part in dealt} == {each}


def test_a_world_that_does_not_fit_is_told_which_would():
    with pytest.raises(InputError, match=r"worlds that fit: \[1, 2, 3, 6\]"):
        share(0, 6, 0, 4)


def test_seeds_and_passes_differ():
    first = Order(1, (50,), (50,), 50)
    assert draw(first, 0, 1) == draw(Order(1, (50,), (50,), 50), 0, 1)
    assert draw(first, 0, 1) != draw(Order(2, (50,), (50,), 50), 0, 1)
    samples = [[sample for _, _, sample in draw(first, epoch, epoch + 1)] for epoch in (0, 1)]
    assert samples[0] != samples[1]


def test_an_empty_source_is_refused():
    with pytest.raises(InputError, match="at least one sample"):
        Order(0, (5, 0), (5, 0), 2)


def test_micro_batches_are_far_jumps_too():
    order = Order(3, (1000, 70), (1000, 70), 8)
    far = order.micro_batch(10**9)
    assert far.sample.shape == (8,)
    assert np.all(far.turn == far.turn[0]) or np.all(np.diff(np.unique(far.turn)) == 1)
