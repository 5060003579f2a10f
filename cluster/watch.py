"""A watchdog against hangs: it says which rank is stuck, and in what, and ends its own.

Each rank notes its place, and a thread of its tells the place to the others through a store that lives beside the
collectives. When a rank has not moved for too long, most often the others are waiting for one that is further behind,
or that gives no sign of life at all: that one is named.
"""

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypeVar

from cluster.endings import TRY_AGAIN
from cluster.world import node_name

Stage = Literal["data", "forward", "backward", "optimizer", "validation", "checkpoint"]
_STAGES: Final = ("data", "forward", "backward", "optimizer", "validation", "checkpoint")
_LOOKS: Final = 2
"""How often a stuck rank still looks at the others before it ends: a living one has told its place meanwhile."""

_Item = TypeVar("_Item")


class Store(Protocol):
    """Keys and values that all ranks see: torch's TCPStore, say."""

    def set(self, key: str, value: str) -> object:
        """Replace a value."""

    def get(self, key: str) -> bytes:
        """A value that is there."""

    def check(self, keys: list[str]) -> bool:
        """Whether all these are there."""


@dataclass(frozen=True)
class Place:
    """Where a rank was last seen.

    Attributes:
        rank: which.
        host: where it runs.
        step: it is working on, counted from 1.
        micro: micro-batch within the step.
        stage: of the step.
        beat: as others see it, rises while the process lives.
    """

    rank: int
    host: str
    step: int = 0
    micro: int = 0
    stage: str = "data"
    beat: int = 0

    @property
    def order(self) -> tuple[int, int, int]:
        """Smaller for those who are further behind; what follows the micro-batches of a step comes after them all."""
        stage = _STAGES.index(self.stage)
        return self.step, self.micro if stage < _STAGES.index("validation") else sys.maxsize, stage

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}, in {self.stage} of step {self.step}"


class Watch:
    """Ends this process when it stays in one place for `limit_s`: `with Watch(...) as watch: watch.at("data", 1)`.

    Args:
        rank: of this process.
        size: all ranks.
        limit_s: longest time in one place.
        store: shared by the ranks; None where there is one rank.
        note: told the last words, and whether others are to blame.
        end: takes the last words; by default it prints them with all stacks and ends the process at once.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        limit_s: float,
        store: Store | None,
        note: Callable[[str, bool], None],
        end: Callable[[str], None] | None = None,
    ) -> None:
        self.rank, self.size, self.limit_s = rank, size, limit_s
        self._store = store
        self._note = note
        self._end = end or _end_process
        self._pause_s = min(10.0, limit_s / 10)
        self._here = Place(rank, node_name())
        self._since = time.monotonic()
        self._question: _Question | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Self:
        """Start watching."""
        self._since = time.monotonic()
        self._tell(self._here, 0)  # at once: a rank that freezes before its first look is named, too
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join(self._pause_s)

    def at(self, stage: Stage, step: int, micro: int = 0) -> None:
        """Note that the work has come to a stage."""
        self._here = Place(self.rank, self._here.host, step, micro, stage)
        self._since = time.monotonic()

    def each(self, items: Iterable[_Item], stage: Stage, step: int) -> Iterator[_Item]:
        """The items, each a sign that a long stage moves on."""
        for item in items:
            self.at(stage, step)
            yield item

    def _watch(self) -> None:
        beat, stuck = 0, 0
        while not self._over.wait(self._pause_s):
            beat += 1
            here, stuck_s = self._here, time.monotonic() - self._since
            self._tell(here, beat)
            stuck = stuck + 1 if stuck_s > self.limit_s else 0
            if stuck == 1:
                self._question = self._ask()
            elif stuck > _LOOKS:  # this one's own sign of life has gone on meanwhile, for the others to see
                self._end_for(here, stuck_s)
                return

    def _end_for(self, here: Place, stuck_s: float) -> None:
        """Say why, leave a note, and end."""
        first = self._question.answer(self._pause_s) if self._question else None
        others = None if first is None else self._ask().answer(self._pause_s)
        words, others_to_blame = _words(here, stuck_s, first, others)
        # A note goes to a file system, which may be what hangs.
        noting = threading.Thread(target=self._note, args=(words, others_to_blame), daemon=True)
        noting.start()
        noting.join(self._pause_s)
        self._end(words)

    def _tell(self, here: Place, beat: int) -> None:
        if self._store is None or (self._question and self._question.is_alive()):  # it would wait as that one does
            return
        value = [here.host, here.step, here.micro, here.stage, beat]
        try:
            self._store.set(f"watch/{self.rank}", json.dumps(value))
        except Exception:  # rank 0, which keeps the store, is gone; the collectives will say so
            self._store = None

    def _ask(self) -> "_Question":
        return _Question(self._store, [rank for rank in range(self.size) if rank != self.rank])


class _Question(threading.Thread):
    """Asks where the others were last seen, in a thread: a client of a store that is frozen or cut off waits for ever.

    Args:
        store: None where it is gone, and in a world of one.
        ranks: whose places.
    """

    def __init__(self, store: Store | None, ranks: Sequence[int]) -> None:
        super().__init__(name="watch-others", daemon=True)
        self._store, self._ranks = store, ranks
        self._found: list[Place] | None = None if ranks else []
        self.start()

    def run(self) -> None:
        """Ask for one after the other."""
        store, keys = self._store, {rank: f"watch/{rank}" for rank in self._ranks}
        if store is None:
            return
        with suppress(Exception):  # rank 0, which keeps the store, is gone
            self._found = [Place(rank, *json.loads(store.get(key))) for rank, key in keys.items() if store.check([key])]

    def answer(self, patience_s: float) -> list[Place] | None:
        """The places; None where the store is gone or does not answer."""
        self.join(patience_s)
        return None if self.is_alive() else self._found


def _words(here: Place, stuck_s: float, first: list[Place] | None, others: list[Place] | None) -> tuple[str, bool]:
    """What a rank says at its end, and whether others are to blame, where it has seen the others twice."""
    words = f"{here} for {stuck_s:.0f} s: stuck"
    if first is None or others is None:
        return f"{words}; no sign of life from rank 0, which keeps the store", True
    beats = {place.rank: place.beat for place in first}
    if silent := [place for place in others if place.beat == beats.get(place.rank)]:
        return f"{words}; no sign of life from {'; '.join(map(str, silent))}", True
    least = min([here.order, *(place.order for place in others)])
    if behind := [place for place in others if place.order == least < here.order]:
        return f"{words}, waiting for {'; '.join(map(str, behind))}", True
    return words, False


def _end_process(words: str) -> None:
    """No clean-up: whatever could hang may hang."""
    print(words, file=sys.stderr, flush=True)
    faulthandler.dump_traceback(all_threads=True)
    os._exit(TRY_AGAIN)
