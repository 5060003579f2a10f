"""What the ranks agree on: the same code and packages, the shard sets, what rank 0 has found; how they end together."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import distributions
from typing import Any, Final, NoReturn, TypeVar

import torch.distributed as dist

from cluster.endings import NeverAgain, SaidByMain, TryAgain, in_words
from cluster.snapshot import code_digest
from cluster.world import World, node_name
from poselib.errors import InputError

Answer = TypeVar("Answer")
_ADVICE: Final = "see `pose doctor`, and use one environment and one folder, or a copy of the code, on all nodes"
_PAUSE_S: Final = 0.3


def check_alike(world: World) -> None:
    """Refuse ranks whose code or packages differ, on every rank alike.

    Raises:
        InputError: names the hosts that differ from most others; elsewhere than on rank 0, SaidByMain.
    """
    if world.size == 1:
        return
    found: list[Any] = [None] * world.size
    dist.all_gather_object(found, (node_name(), code_digest(), _packages()))
    for place, what in ((1, "code"), (2, "packages")):
        usual = Counter(rank[place] for rank in found).most_common(1)[0][0]
        other = sorted({rank[0] for rank in found if rank[place] != usual})
        if other:
            refuse(InputError(f"{', '.join(other)}: other {what} than on the other nodes; {_ADVICE}"))


def on_every_rank(act: Callable[[], Answer], world: World) -> Answer:
    """What `act` gives, once it has gone well on all ranks.

    Raises:
        InputError: of the first rank where it did not, with the host's name; TryAgain where a file could not be read or
            written; elsewhere than on rank 0, SaidByMain.
    """
    answer, error = _attempt(act)
    found: list[Any] = [error]
    if world.size > 1:
        if error is not None:
            kind = next((kind for kind in (TryAgain, NeverAgain) if isinstance(error, kind)), InputError)
            error = kind(f"rank {world.rank} on {node_name()}: {error}")
        found = [None] * world.size
        dist.all_gather_object(found, error)
    for problem in filter(None, found):
        refuse(problem)
    return answer  # type: ignore[return-value]


def from_main(act: Callable[[], Answer], world: World) -> Answer:
    """What `act` gives on rank 0, on every rank.

    Raises:
        InputError: of rank 0; TryAgain where a file could not be read or written; elsewhere SaidByMain.
    """
    told: list[Any] = [_attempt(act) if world.is_main else None]
    if world.size > 1:
        dist.broadcast_object_list(told)
    answer, error = told[0]
    if error is not None:
        refuse(error)
    return answer


def refuse(error: InputError) -> NoReturn:
    """End all ranks by what all of them know.

    Raises:
        InputError: `error`, on rank 0; elsewhere SaidByMain.
    """
    if not dist.is_initialized() or dist.get_rank() == 0:
        raise error
    raise SaidByMain(error)


def stay_until_main(world: World, seconds: float, place: str = "end") -> None:
    """Keep the ranks together until rank 0 comes to this place too, has gone, or the time is over.

    `srun --wait` counts from the first rank that leaves, and rank 0 still brings the record to MLflow.
    """
    if world.size == 1:
        return
    # Not a new connection to it: rank 0, where it lives, may have gone already.
    store = dist.distributed_c10d._get_default_store()
    if world.is_main:
        store.set(f"main/{place}", "")
        return
    deadline = time.monotonic() + seconds
    with suppress(RuntimeError):  # rank 0 has gone, and the store with it
        while time.monotonic() < deadline and not store.check([f"main/{place}"]):
            time.sleep(_PAUSE_S)


def _attempt(act: Callable[[], Answer]) -> tuple[Answer | None, InputError | None]:
    try:
        return act(), None
    except InputError as error:
        return None, error
    except OSError as error:
        return None, TryAgain(in_words(error))


def _packages() -> str:
    """A digest of all names and versions."""
    lines = sorted(f"{part.metadata['Name']} {part.version}" for part in distributions())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
