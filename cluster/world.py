"""Who am I among how many: from torchrun, Slurm, submitit or nothing. Nobody else reads such variables."""

import os
import random
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from poselib.errors import InputError

_PORT_BASE: Final = 20000
_PORT_SPAN: Final = 10000
_PORTS_PER_RESTART: Final = 997
_OWN_PORTS: Final = range(_PORT_BASE - _PORT_SPAN, _PORT_BASE)
"""Apart from those of jobs, and below those that systems give to outgoing connections."""
_INTERACTIVE_STEP: Final = str(0xFFFFFFFA)
"""Slurm's number of the step in which `salloc` may run a shell: no task of a run."""


@dataclass(frozen=True)
class Job:
    """The batch job that a process belongs to.

    Attributes:
        id: Slurm's; empty outside.
        restart: how often Slurm has requeued it.
    """

    id: str = ""
    restart: int = 0


NO_JOB: Final = Job()


@dataclass(frozen=True)
class Allocation:
    """A Slurm job, seen from inside.

    Attributes:
        job: its number.
        nodes: how many it has.
        gpus_on_node: GPUs that Slurm gave to this node of it; 0 where it gave none.
        in_task: whether this process is a task that `srun` started, not the batch script or a shell of `salloc`.
    """

    job: int
    nodes: int
    gpus_on_node: int
    in_task: bool


@dataclass(frozen=True)
class World:
    """A process' place among the processes of a run.

    Attributes:
        rank: this process, 0 to size - 1.
        size: all processes.
        local_rank: this process on its node.
        local_size: processes on its node.
        address: host of rank 0.
        port: of rank 0's rendezvous.
        launcher: who started the processes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    launcher: str = "none"

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints for all."""
        return self.rank == 0

    def variables(self) -> dict[str, str]:
        """The variables by which torch.distributed and DeepSpeed find each other."""
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_WORLD_SIZE": str(self.local_size),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def current_world(environ: Mapping[str, str] = os.environ) -> World | None:
    """The world that a launcher has laid out, or None where nobody has.

    submitit's Slurm jobs are Slurm tasks, and its local ones carry torchrun's variables.

    Raises:
        InputError: a launcher's variables are incomplete or no numbers.
    """
    try:
        if "RANK" in environ and "WORLD_SIZE" in environ:
            return _from_torchrun(environ)
        if "SLURM_PROCID" in environ and _in_task(environ) and environ.get("SLURM_NTASKS"):
            return _from_slurm(environ)
    except (KeyError, ValueError) as error:
        raise InputError(f"the launcher's variables are incomplete: {error}") from error
    return None


def current_job(environ: Mapping[str, str] = os.environ) -> Job:
    """The Slurm job around this process, of whatever launcher; a task of an array is `123_4`.

    The task of an array that begins last has the array's own number as its SLURM_JOB_ID: to requeue that one would
    requeue all of them.
    """
    job, array, task = (environ.get(f"SLURM_{name}", "") for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"))
    return Job(f"{array}_{task}" if array and task else job, int(environ.get("SLURM_RESTART_COUNT") or 0))


def current_allocation(environ: Mapping[str, str] = os.environ) -> Allocation | None:
    """The Slurm job that this process runs in, or beside whose tasks it runs; None outside of Slurm.

    Raises:
        InputError: Slurm's variables are no numbers.
    """
    if not environ.get("SLURM_JOB_ID"):
        return None
    try:
        return Allocation(
            job=int(environ["SLURM_JOB_ID"]),
            nodes=int(environ.get("SLURM_JOB_NUM_NODES", "1")),
            gpus_on_node=int(environ.get("SLURM_GPUS_ON_NODE", "0")),
            in_task=_in_task(environ),
        )
    except ValueError as error:
        raise InputError(f"Slurm's variables are no numbers: {error}") from error


def job_hosts(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The nodes of the Slurm job around this process, the batch host first; none outside."""
    nodes = environ.get("SLURM_JOB_NODELIST", "")
    return _expand(nodes) if nodes else []


def node_name(environ: Mapping[str, str] = os.environ) -> str:
    """This node as Slurm calls it, which may be shorter than its host name."""
    return environ.get("SLURMD_NODENAME") or socket.gethostname()


def free_port() -> int:
    """A TCP port that is free on this machine right now, and that no outgoing connection takes before it is used."""
    for port in random.sample(_OWN_PORTS, len(_OWN_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise InputError(f"no port of {_OWN_PORTS[0]} to {_OWN_PORTS[-1]} is free on this machine")


def cores_per_rank(world: World) -> int:
    """CPU cores for each process of this node."""
    return max(1, len(os.sched_getaffinity(0)) // world.local_size)


def _in_task(environ: Mapping[str, str]) -> bool:
    """Whether `srun` has started this process for the work itself: not a batch script, not a shell of `salloc`."""
    return environ.get("SLURM_STEP_ID", "") not in ("", _INTERACTIVE_STEP)


def _from_torchrun(environ: Mapping[str, str]) -> World:
    size = int(environ["WORLD_SIZE"])
    return World(
        rank=int(environ["RANK"]),
        size=size,
        local_rank=int(environ.get("LOCAL_RANK", "0")),
        local_size=int(environ.get("LOCAL_WORLD_SIZE", str(size))),
        address=environ["MASTER_ADDR"],
        port=int(environ["MASTER_PORT"]),
        launcher="torchrun",
    )


def _from_slurm(environ: Mapping[str, str]) -> World:
    size = int(environ["SLURM_NTASKS"])
    job = int(environ["SLURM_JOB_ID"])
    # Below the ports that the kernel hands out; a rank that lives on from before a requeue must not find the new ones.
    job += _PORTS_PER_RESTART * current_job(environ).restart
    return World(
        rank=int(environ["SLURM_PROCID"]),
        size=size,
        local_rank=int(environ["SLURM_LOCALID"]),
        # "2(x3),1" tasks per node: the first number is right on even allocations, and it only shares out cores.
        local_size=int(environ.get("SLURM_STEP_TASKS_PER_NODE", "1").split("(")[0].split(",")[0]),
        address=environ.get("MASTER_ADDR") or _expand(environ["SLURM_STEP_NODELIST"])[0],
        port=int(environ.get("MASTER_PORT") or _PORT_BASE + job % _PORT_SPAN),
        launcher="slurm",
    )


def _expand(nodes: str) -> list[str]:
    """The hosts of a Slurm node list such as `gpu[03-06]`."""
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"cannot expand the node list {nodes!r} with scontrol; set MASTER_ADDR") from error
