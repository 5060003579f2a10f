"""Which GPU a process computes on, in every way in which a launcher may show it the GPUs of its node."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist

from cluster.engine.engine import choose_device, refuse_shared_card
from cluster.world import World
from poselib.errors import InputError

pytestmark = pytest.mark.unit


@pytest.fixture
def visible(monkeypatch):
    """A machine that shows so many GPUs to this process."""

    def show(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return show


def test_a_process_takes_the_gpu_of_its_place(visible):
    visible(4)
    assert [choose_device("auto", place) for place in range(4)] == [torch.device("cuda", place) for place in range(4)]
    with pytest.raises(InputError, match="process 4 of this node has no GPU: 4 are visible"):
        choose_device("cuda", 4)


def test_a_process_that_was_bound_to_a_gpu_takes_that_one(visible):
    visible(1)
    assert choose_device("auto", 3) == torch.device("cuda", 0)


def test_without_a_gpu_it_is_the_cpu_unless_cuda_is_wanted(visible):
    visible(0)
    assert choose_device("auto", 1) == torch.device("cpu")
    with pytest.raises(InputError, match="shows no CUDA device; take cpu or auto"):
        choose_device("cuda", 0)


@pytest.mark.parametrize(("cards", "refused"), [("abcd", {}), ("abcb", {1, 3})])
def test_ranks_that_share_a_gpu_are_refused(cards, refused):
    store = dist.HashStore()

    def enter(rank: int) -> str:
        try:
            refuse_shared_card(store, World(rank, 4), cards[rank])
        except InputError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(enter, range(4)))
    assert {rank for rank, words in enumerate(said) if "ranks 1, 3 were given the same GPU, b" in words} == set(refused)
    assert [bool(words) for words in said] == [rank in refused for rank in range(4)]
