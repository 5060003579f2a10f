"""What can happen to a training in the lab: each fault befalls a running job and is made good again where it can be.

A fault returns once the job has left the start that it befell, or has lived through it.
"""

import math
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import drill
from drill import Training
from lab import Lab, wait_until

_PATIENCE_S: Final = 300.0
_CUT_S: Final = 20
_AWAY_S: Final = (5.0, 15.0)
"""How long a controller is away."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        act: does it, and says what it did.
        saves: whether the ranks have the time to save, so that no step is done again.
        restarts: how often it starts the job again, at least.
    """

    act: Callable[[Training, random.Random], str]
    saves: bool = False
    restarts: int = 1


def restarts(training: Training) -> int:
    """How often Slurm has put the job back into its queue."""
    return int(training.lab.job(training.job)["Restarts"])


def running(training: Training) -> bool:
    """Whether the job runs at this moment."""
    return training.lab.job(training.job)["JobState"] == "RUNNING"


def _left(training: Training, before: int) -> None:
    """Wait until the start after `before` requeues is over."""

    def over() -> bool:
        job = training.lab.job(training.job)
        return int(job["Restarts"]) > before or job["JobState"] not in ("RUNNING", "COMPLETING")

    wait_until(over, _PATIENCE_S, lambda: f"the job goes on as if nothing had happened\n{training.output()}", pause=0.3)


def _signal(name: str) -> Fault:
    def act(training: Training, draw: random.Random) -> str:
        before = restarts(training)
        training.lab.run(["scancel", f"--signal={name}", str(training.job)])
        _left(training, before)
        return f"{name} to the job"

    return Fault(act, saves=True)


def _time_limit(training: Training, draw: random.Random) -> str:
    """Slurm looks at time limits every 30 s; USR1 is due 120 s ahead."""
    before, job = restarts(training), training.lab.job(training.job)
    hours, minutes, seconds = map(int, job["RunTime"].split(":"))
    limit = math.ceil(60 * hours + minutes + seconds / 60) + 1
    _update(training.lab, f"JobId={training.job}", f"TimeLimit={limit}")
    _left(training, before)
    _update(training.lab, f"JobId={training.job}", "TimeLimit=UNLIMITED")
    return f"time limit of {limit} min"


def _preemption(grace_s: int) -> Fault:
    def act(training: Training, draw: random.Random) -> str:
        lab = training.lab
        _update(lab, "PartitionName=batch", f"GraceTime={grace_s}")
        urgent = lab.sbatch("--partition=urgent", "--nodes=4", "--exclusive", "--wrap", "sleep 1", cwd=training.folder)
        lab.wait(urgent, "COMPLETED", seconds=_PATIENCE_S)
        _update(lab, "PartitionName=batch", "GraceTime=0")
        return f"an urgent job takes all nodes, {f'{grace_s} s of grace' if grace_s else 'no grace'}"

    return Fault(act, saves=bool(grace_s))


def _rank_signal(number: signal.Signals) -> Fault:
    def act(training: Training, draw: random.Random) -> str:
        before, node = restarts(training), draw.choice(training.nodes())
        os.kill(drill.rank_pids(training.lab, node)[0], number)
        _left(training, before)
        return f"{number.name} of the rank on {node}"

    return Fault(act)


def _power(place: int) -> Fault:
    def act(training: Training, draw: random.Random) -> str:
        before, node = restarts(training), training.nodes()[place]
        training.lab.kill(node)
        _left(training, before)
        training.lab.start(node)
        return f"power loss of {node}, {_ROLES[place]}"

    return Fault(act)


def _cut(place: int) -> Fault:
    def act(training: Training, draw: random.Random) -> str:
        node = training.nodes()[place]
        training.lab.cut(node)
        time.sleep(_CUT_S)
        training.lab.heal(node)
        return f"{node}, {_ROLES[place]}, cut off for {_CUT_S} s"

    return Fault(act, restarts=0)


def _long_cut(training: Training, draw: random.Random) -> str:
    """Until the job has begun elsewhere: two copies of it live for a while."""
    node, starts = training.nodes()[1], len(training.restored())
    training.lab.cut(node)
    began = time.monotonic()
    wait_until(lambda: len(training.restored()) > starts, _PATIENCE_S, training.output, pause=0.2)
    training.lab.heal(node)
    return f"{node}, {_ROLES[1]}, cut off for {time.monotonic() - began:.0f} s, until the job had begun elsewhere"


def _controller(training: Training, draw: random.Random) -> str:
    away = draw.uniform(*_AWAY_S)
    training.lab.stop_controller()
    time.sleep(away)
    training.lab.start_controller()
    return f"slurmctld killed, away for {away:.0f} s"


def _controller_and_rank(training: Training, draw: random.Random) -> str:
    before, node, away = restarts(training), draw.choice(training.nodes()), draw.uniform(*_AWAY_S)
    pid = drill.rank_pids(training.lab, node)[0]
    training.lab.stop_controller()
    os.kill(pid, signal.SIGKILL)
    time.sleep(away)
    training.lab.start_controller()
    answers(training.lab)
    _left(training, before)
    return f"SIGKILL of the rank on {node} while slurmctld is away for {away:.0f} s"


def _disk(training: Training, draw: random.Random) -> str:
    """Rank 0 writes the checkpoints; a file that grows over the limit is a disk that is full."""
    before, host = restarts(training), training.nodes()[0]
    full = max(path.stat().st_size for path in (training.run / "checkpoints").rglob("*.safetensors")) // 2
    resource.prlimit(drill.rank_pids(training.lab, host)[0], resource.RLIMIT_FSIZE, (full, full))
    _left(training, before)
    return "disk full at the next checkpoint"


def _drained(training: Training, draw: random.Random) -> str:
    before, node = restarts(training), draw.choice(training.nodes())
    _update(training.lab, f"NodeName={node}", "State=DOWN", "Reason=soak")
    _left(training, before)
    # Slurm gives it back by itself where it had not answered for a moment, and then refuses to.
    training.lab.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=False)
    return f"{node} taken out by the administrator, and given back"


def answers(lab: Lab) -> None:
    """Wait until the controller is back."""
    wait_until(
        lambda: lab.run(["scontrol", "ping"], check=False).returncode == 0, 60, lambda: lab.log("slurmctld"), pause=0.3
    )


def _update(lab: Lab, *words: str) -> None:
    lab.run(["scontrol", "update", *words])


_ROLES: Final = ("the batch host", "the other node")

FAULTS: Final = {
    "USR1": _signal("USR1"),
    "TERM": _signal("TERM"),
    "time limit": Fault(_time_limit, saves=True),
    "preemption, warned": _preemption(60),
    "preemption": _preemption(0),
    "rank killed": _rank_signal(signal.SIGKILL),
    "rank frozen": _rank_signal(signal.SIGSTOP),
    "power loss": _power(1),
    "power loss, batch host": _power(0),
    "network cut": _cut(1),
    "network cut, batch host": _cut(0),
    "long network cut": Fault(_long_cut),
    "controller restart": Fault(_controller, restarts=0),
    "rank killed, no controller": Fault(_controller_and_rank),
    "full disk": Fault(_disk),
    "node taken out": Fault(_drained),
}
