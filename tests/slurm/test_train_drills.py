"""Hangs, time limits, lost nodes, cut networks, a controller that restarts, a full disk, two copies of one job."""

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import drill
from drill import EVERY, STEPS, Training
from lab import Lab, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.drill, pytest.mark.timeout(900)]

Start = Callable[..., Training]


@pytest.fixture
def start(shard_sets: dict[str, Path], tmp_path: Path) -> Iterator[Start]:
    """A training in a lab of its own, which a drill may leave in pieces."""
    with Lab(nodes=4) as own:
        yield lambda *words, name="job", **named: drill.start(own, tmp_path / name, shard_sets, *words, **named)


def check(training: Training, undisturbed: dict[int, float], least: int = 1, most: int = 1) -> None:
    """It came to the end after so many restarts, repeating only what no checkpoint held, with the same losses."""
    restarts = int(training.wait_end(600)["Restarts"])
    assert least <= restarts <= most, training.output()
    assert training.losses() == undisturbed
    assert least <= len(training.restored()) <= restarts
    assert all(step % EVERY == 0 for step in training.restored())
    assert len(training.steps()) - STEPS <= EVERY * restarts
    assert [line["value"] for line in training.records() if line["kind"] == "status"][-1] == "finished"


@pytest.mark.parametrize(
    ("rank", "said"), [(0, "no sign of life from rank 0, which keeps"), (1, "no sign of life from rank 1 on n2, in ")]
)
def test_a_frozen_rank_is_named(start: Start, undisturbed: dict[int, float], rank: int, said: str) -> None:
    """Rank 0 keeps the store through which the ranks tell each other where they are."""
    training = start("--engine.timeout_s=25")
    training.wait_step(EVERY + 1)
    frozen, other = training.nodes()[rank], training.nodes()[1 - rank]
    os.kill(drill.rank_pids(training.lab, frozen)[0], signal.SIGSTOP)
    check(training, undisturbed)
    assert f"rank {1 - rank} on {other}, in " in training.output()
    assert said in training.output()


def test_the_time_limit_is_met_with_a_checkpoint(start: Start, undisturbed: dict[int, float]) -> None:
    training = start("--engine.timeout_s=600", time="3", signal="USR1@120")
    training.wait_step(EVERY + 1)
    ranks = [drill.rank_pids(training.lab, node)[0] for node in ("n1", "n2")]
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)  # the machine may be fast: they wait for the signal
    wait_until(lambda: all(map(_has_usr1, ranks)), 240, training.output, pause=0.5)
    for rank in ranks:
        with suppress(ProcessLookupError):
            os.kill(rank, signal.SIGCONT)
    assert training.wait_end(600)["Restarts"] == "1"
    assert training.losses() == undisturbed
    assert training.steps() == list(range(1, STEPS + 1))


def _has_usr1(pid: int) -> bool:
    """Whether the signal waits for a frozen process, or has ended it: Slurm may thaw processes that it signals."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True
    pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (signal.SIGUSR1 - 1) & 1 for mask in pending)


@pytest.mark.parametrize("place", [0, 1])
def test_a_node_loses_its_power(start: Start, undisturbed: dict[int, float], place: int) -> None:
    training = start()
    training.wait_step(EVERY + 1)
    training.lab.kill(training.nodes()[place])
    check(training, undisturbed)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(("seconds", "least", "most"), [(20, 0, 1), (60, 1, 2)])
def test_the_network_is_cut(
    start: Start, undisturbed: dict[int, float], place: int, seconds: int, least: int, most: int
) -> None:
    """For 20 s Slurm may or may not give the node up; after 60 s it has.

    The `srun` of a batch host that comes back ends its step by number, which by then is the new start's: that one is
    requeued once more.
    """
    training = start()
    training.wait_step(EVERY + 1)
    cut = training.nodes()[place]
    training.lab.cut(cut)
    time.sleep(seconds)
    training.lab.heal(cut)
    check(training, undisturbed, least, most)
    training.lab.wait_idle(4, seconds=120)


def test_a_node_that_failed_is_avoided(start: Start, undisturbed: dict[int, float]) -> None:
    training = start("--restart.exclude_nodes=true")
    training.wait_step(EVERY + 1)
    os.kill(drill.rank_pids(training.lab, "n2")[0], signal.SIGKILL)
    check(training, undisturbed)
    assert training.lab.job(training.job)["ExcNodeList"] == "n2"
    assert "n2" not in training.nodes()
    assert "goes back into the queue without n2, as its ranks ended with exit code 137 (on n2)" in training.output()


def test_the_controller_is_away_when_a_rank_dies(start: Start, undisturbed: dict[int, float]) -> None:
    training = start()
    training.wait_step(EVERY + 1)
    training.lab.stop_controller()
    os.kill(drill.rank_pids(training.lab, "n2")[0], signal.SIGKILL)
    time.sleep(15)
    training.lab.start_controller()
    check(training, undisturbed)


def test_the_disk_is_full_at_a_checkpoint(start: Start, undisturbed: dict[int, float]) -> None:
    training = start()
    training.wait_step(EVERY + 1)
    sizes = [path.stat().st_size for path in (training.run / "checkpoints").rglob("*.safetensors")]
    full = max(sizes) // 2
    resource.prlimit(drill.rank_pids(training.lab, "n1")[0], resource.RLIMIT_FSIZE, (full, full))
    check(training, undisturbed)
    assert "could not be written" in training.output()


def test_two_copies_of_a_job_at_once(start: Start) -> None:
    reference = start(nodes=1, name="reference")
    reference.wait_end(400)
    training = start(nodes=1)
    training.wait_step(EVERY + 1)
    [host] = training.nodes()
    [stale] = drill.rank_pids(training.lab, host)
    os.kill(stale, signal.SIGSTOP)
    training.lab.cut(host)
    wait_until(lambda: len(training.restored()) == 1, 240, training.output, pause=0.5)
    os.kill(stale, signal.SIGCONT)
    wait_until(lambda: "start 2 of this run (job" in training.output(), 120, training.output)
    check(training, reference.losses())
    assert "ends without writing" in training.output()
    training.lab.heal(host)
    training.lab.wait_idle(4, seconds=120)
