"""Which rank a hang is laid at, in what stage."""

import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from cluster.watch import Watch

pytestmark = pytest.mark.unit

LIMIT_S = 1.0


def notes(words: str, others_to_blame: bool) -> None:
    assert others_to_blame == ("waiting for" in words or "no sign" in words)


class Shared:
    """A store within one process."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)


class Gone(Shared):
    """The store of a rank 0 that is gone."""

    def set(self, key: str, value: str) -> None:
        raise RuntimeError("Connection reset by peer")

    def check(self, keys: list[str]) -> bool:
        raise RuntimeError("Broken pipe")


class Frozen(Shared):
    """The store of a rank 0 that is stopped, or cut off: who asks waits for ever."""

    def check(self, keys: list[str]) -> bool:
        return threading.Event().wait()


@pytest.fixture
def heard() -> "queue.Queue[str]":
    return queue.Queue()


@pytest.fixture
def watches(heard) -> Iterator[list[Watch]]:
    store = Shared()
    with ExitStack() as stack:
        yield [stack.enter_context(Watch(rank, 3, LIMIT_S, store, notes, heard.put)) for rank in range(3)]


def all_words(heard: "queue.Queue[str]", count: int) -> dict[int, str]:
    found = [heard.get(timeout=30) for _ in range(count)]
    return {int(words.split()[1]): words for words in found}


@pytest.mark.parametrize("stage", ["data", "forward"])
def test_the_rank_that_is_behind_is_named_by_all(watches, heard, stage):
    for watch in watches:
        watch.at(stage if watch.rank == 1 else "backward", 17)
    words = all_words(heard, 3)
    assert f"in {stage} of step 17 for " in words[1]
    assert words[1].endswith("s: stuck")
    for rank in (0, 2):
        assert "in backward of step 17 for " in words[rank]
        assert ": stuck, waiting for rank 1 on " in words[rank]
        assert words[rank].endswith(f"in {stage} of step 17")


def test_one_that_gives_no_sign_of_life_is_named(heard):
    store = Shared()
    store.set("watch/1", '["n7", 17, 0, "optimizer", 5]')
    with Watch(0, 2, LIMIT_S, store, notes, heard.put) as watch:
        watch.at("optimizer", 17)
        assert "no sign of life from rank 1 on n7, in optimizer of step 17" in heard.get(timeout=30)


@pytest.mark.parametrize("store", [Frozen(), Gone()], ids=["frozen", "gone"])
def test_a_store_that_does_not_answer_is_laid_at_its_keeper(heard, store):
    with Watch(1, 2, LIMIT_S, store, notes, heard.put) as watch:
        watch.at("backward", 17)
        words = heard.get(timeout=30)
    assert "rank 1 on " in words
    assert words.endswith("in backward of step 17 for 1 s: stuck; no sign of life from rank 0, which keeps the store")


def test_a_rank_is_known_from_its_start(heard):
    store = Shared()
    with Watch(1, 2, 600.0, store, notes, heard.put):
        assert "watch/1" in store.values


def test_a_rank_alone_names_itself(heard):
    with Watch(0, 1, LIMIT_S, None, notes, heard.put) as watch:
        watch.at("checkpoint", 20)
        assert heard.get(timeout=30).endswith("in checkpoint of step 20 for 1 s: stuck")


def test_a_long_stage_that_moves_on_is_no_hang(heard):
    pause = threading.Event()
    with Watch(0, 1, LIMIT_S, None, notes, heard.put) as watch:
        for _ in watch.each(range(12), "validation", 20):
            pause.wait(LIMIT_S / 4)
        assert heard.empty()
