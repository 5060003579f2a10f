"""The nodes of an allocation meet where a training would: at rank 0's address and port, over torch's own store.

Every rank says hello. Then one rank of each node, its `lead`, checks: names, clocks and an all-reduce here, folders in
`shared_folder.py`.
Nothing but JSON text goes over the wire.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from cluster.doctor.finding import Finding
from cluster.world import World
from poselib.errors import InputError

_ROUNDS: Final = 5


@dataclass(frozen=True)
class Member:
    """A rank that came.

    Attributes:
        rank: its number.
        host: where it runs.
        lead: whether it checks for its node.
    """

    rank: int
    host: str
    lead: bool


class Meeting:
    """This rank's seat at the meeting.

    Args:
        world: this process' place.
        timeout_s: how long to wait for the others.

    Raises:
        InputError: rank 0's port is taken, or cannot be reached from here; or rank 0 is gone.
    """

    def __init__(self, world: World, timeout_s: float) -> None:
        self.world, self.timeout_s = world, timeout_s
        self.host = socket.gethostname()
        self._store = _open_store(world, timeout_s)
        self.members = self._hello()
        self.leads = [member for member in self.members if member.lead]

    def say(self, key: str, value: Any) -> None:
        """Tell the others."""
        self._store.set(key, json.dumps(value))

    def hear(self, key: str, timeout_s: float | None = None) -> Any:
        """What somebody said, or None when nobody does in time."""
        try:
            self._store.wait([key], timedelta(seconds=max(timeout_s if timeout_s is not None else self.timeout_s, 0.1)))
            return json.loads(self._store.get(key))
        except RuntimeError as error:  # torch's DistStoreError and DistNetworkError
            if "onnection" in str(error):
                raise InputError(f"{self.host} has lost {self.world.address}, where rank 0 runs") from error
            return None

    def hear_all(self, key: str, ranks: Sequence[int], timeout_s: float) -> dict[int, Any]:
        """What these ranks said, all within `timeout_s`; who is silent is left out."""
        deadline = time.monotonic() + timeout_s
        answers = {rank: self.hear(f"{key}/{rank}", deadline - time.monotonic()) for rank in ranks}
        return {rank: answer for rank, answer in answers.items() if answer is not None}

    def _hello(self) -> list[Member]:
        """Everybody says who they are; rank 0 tells all who came."""
        world = self.world
        self.say(f"hello/{world.rank}", [world.rank, self.host, world.local_rank == 0])
        if world.is_main:
            came = self.hear_all("hello", range(world.size), self.timeout_s)
            self.say("members", list(came.values()))
        members = self.hear("members", 2 * self.timeout_s)
        if members is None:
            raise InputError(f"{self.host} waited in vain for rank 0 on {world.address}")
        return [Member(*member) for member in members]

    # What only several nodes can check. All leads call these in the same order.

    def names(self) -> Finding:
        """Every other node's name leads to an address, and this one's own not to itself alone."""
        own = resolve(self.host)
        if any(address.startswith("127.") or address == "::1" for address in own):
            advice = "mend /etc/hosts or DNS; until then set network_interface in the site, or GLOO_SOCKET_IFNAME"
            return Finding("host names", "fail", f"its own name means {own[0]}, itself", advice)
        unknown = [member.host for member in self.leads if not resolve(member.host)]
        if unknown:
            advice = "mend DNS or /etc/hosts on the node"
            return Finding("host names", "fail", f"cannot resolve {', '.join(unknown[:4])}", advice)
        return Finding("host names", "ok", "all resolve")

    def clock(self) -> Finding:
        """This node's clock against rank 0's, as NTP asks: the quickest of a few questions counts."""
        rank = self.world.rank
        if self.world.is_main:
            for member in self.leads[1:]:
                for turn in range(_ROUNDS):
                    if self.hear(f"clock/{member.rank}/{turn}") is None:
                        break
                    self.say(f"time/{member.rank}/{turn}", time.time())
            return clock(0.0, 0.0)
        answers = []
        for turn in range(_ROUNDS):
            asked = time.time()
            self.say(f"clock/{rank}/{turn}", asked)
            theirs = self.hear(f"time/{rank}/{turn}")
            heard = time.time()
            if theirs is None:
                return Finding("clock", "fail", "rank 0 did not answer", "see the other findings")
            answers.append(((heard - asked) / 2, (asked + heard) / 2 - theirs))
        error, offset = min(answers)
        return clock(offset, error)

    def all_reduce(self, on_gpu: bool, patience_s: float) -> Finding:
        """All leads add up some megabytes, in a process of their own that may crash or hang.

        Args:
            on_gpu: whether this node has a GPU; NCCL is taken where all have.
            patience_s: how long to wait until every lead has come to this point.
        """
        self.say(f"gpu/{self.world.rank}", on_gpu)
        ranks = [member.rank for member in self.leads]
        everywhere = self.hear_all("gpu", ranks, patience_s)
        backend = "nccl" if len(everywhere) == len(ranks) and all(everywhere.values()) else "gloo"
        check = f"all-reduce, {backend}"
        lead = World(ranks.index(self.world.rank), len(ranks), 0, 1, self.world.address, self.world.port)
        command = [sys.executable, "-m", "cluster.doctor.collective", backend, str(self.timeout_s)]
        advice = "name the right network: network_interface in the site, or NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME"
        try:
            done = subprocess.run(
                command,
                env=os.environ | lead.variables(),
                capture_output=True,
                text=True,
                timeout=self.timeout_s + 60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Finding(check, "fail", f"no end within {self.timeout_s:.0f} s", advice)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
            return Finding(check, "fail", lines[-1].strip()[:200], advice)
        return Finding(check, "ok", done.stdout.splitlines()[-1])


def clock(offset_s: float, error_s: float) -> Finding:
    """Judge how far a clock is from rank 0's, known up to an error; seconds."""
    surely = max(0.0, abs(offset_s) - error_s)
    says = f"{offset_s * 1000:+.0f} ms ± {error_s * 1000:.0f}" if error_s else "the reference"
    if surely < 1.0:
        return Finding("clock", "ok", says)
    advice = "have the site start chrony or ntpd; file times, logs and Slurm's own credentials depend on it"
    return Finding("clock", "warn" if surely < 30.0 else "fail", says, advice)


def resolve(host: str) -> list[str]:
    """The addresses of a name; none where it is unknown."""
    try:
        return sorted({str(answer[4][0]) for answer in socket.getaddrinfo(host, None)})
    except OSError:
        return []


def _open_store(world: World, timeout_s: float) -> Any:
    """torch's store: served by rank 0, the others wait for it."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # its stack traces say less than the lines below
    place = f"{world.address}:{world.port}"
    if not world.is_main:
        _reach(world, timeout_s)
    from torch.distributed import DistNetworkError, TCPStore

    try:
        return TCPStore(
            world.address,
            world.port,
            is_master=world.is_main,
            wait_for_workers=False,
            timeout=timedelta(seconds=timeout_s),
        )
    except DistNetworkError as error:
        if world.is_main:
            what = "is taken by another process" if "EADDRINUSE" in str(error) else "cannot be bound"
            raise InputError(f"rendezvous port {place} {what}; set MASTER_PORT to a free one") from error
        raise InputError(f"{socket.gethostname()} reaches {place}, but no rendezvous answers there") from error


def _reach(world: World, timeout_s: float) -> None:
    """Wait until rank 0 listens; the last error tells why it does not."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((world.address, world.port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                why = error.strerror or str(error)
                raise InputError(
                    f"{socket.gethostname()} cannot reach rank 0 at {world.address}:{world.port} ({why}); ranks of a"
                    " run could not meet either: open the port, or set MASTER_ADDR to a name of the nodes' own network"
                ) from error
        time.sleep(0.2)
