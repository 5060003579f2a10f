"""What the ranks agree on before the first step: the same code and packages, the shard sets, what rank 0 has found."""

import hashlib
import socket
from collections import Counter
from collections.abc import Callable
from importlib.metadata import distributions
from typing import Any, Final, TypeVar

import torch.distributed as dist

from cluster.snapshot import code_digest
from cluster.world import World
from poselib.errors import InputError

Answer = TypeVar("Answer")
_ADVICE: Final = "see `pose doctor`, and use one environment and one folder, or a copy of the code, on all nodes"


def check_alike(world: World, own: tuple[str, str, str] | None = None) -> None:
    """Refuse ranks whose code or packages differ, on every rank alike.

    Args:
        world: this process' place.
        own: this rank's host, code and packages; by default what runs here.

    Raises:
        InputError: names the hosts that differ from most others; elsewhere than on rank 0, SystemExit.
    """
    if world.size == 1:
        return
    found: list[Any] = [None] * world.size
    dist.all_gather_object(found, own or (socket.gethostname(), code_digest(), _packages()))
    for place, what in ((1, "code"), (2, "packages")):
        usual = Counter(rank[place] for rank in found).most_common(1)[0][0]
        other = sorted({rank[0] for rank in found if rank[place] != usual})
        if other:
            _refuse(InputError(f"{', '.join(other)}: other {what} than on the other nodes; {_ADVICE}"), world)


def on_every_rank(act: Callable[[], Answer], world: World) -> Answer:
    """What `act` gives, once it has gone well on all ranks.

    Raises:
        InputError: of the first rank where it did not, with the host's name; elsewhere than on rank 0, SystemExit.
    """
    answer, said = None, ""
    try:
        answer = act()
    except InputError as error:
        if world.size == 1:
            raise
        said = f"rank {world.rank} on {socket.gethostname()}: {error}"
    if world.size > 1:
        found: list[Any] = [None] * world.size
        dist.all_gather_object(found, said)
        if failed := [words for words in found if words]:
            _refuse(InputError(failed[0]), world)
    return answer  # type: ignore[return-value]


def from_main(act: Callable[[], Answer], world: World) -> Answer:
    """What `act` gives on rank 0, on every rank.

    Raises:
        InputError: of rank 0; elsewhere SystemExit.
    """
    answer: list[Any] = [None]
    if world.is_main:
        try:
            answer = [act()]
        except InputError as error:
            answer = [error]
    if world.size > 1:
        dist.broadcast_object_list(answer)
    if isinstance(answer[0], InputError):
        _refuse(answer[0], world)
    return answer[0]


def _refuse(error: InputError, world: World) -> None:
    if world.is_main:
        raise error
    raise SystemExit(getattr(error, "exit_code", 1))  # rank 0 says it


def _packages() -> str:
    """A digest of all names and versions."""
    lines = sorted(f"{part.metadata['Name']} {part.version}" for part in distributions())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
