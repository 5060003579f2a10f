"""The ranks of one trial on several nodes: a Ray actor on each starts them, as torchrun would."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import ray
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.world import World, free_port
from tune.training import CONFIG, LOG, child_environment

_GRACE_S: Final = 30.0
"""How long the other ranks get to end after one has failed."""


class Host:
    """The ranks of a trial on one node; lives there."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def place(self) -> tuple[str, int]:
        """This node's address and a port that is free on it."""
        return ray.util.get_node_ip_address(), free_port()

    def start(self, folder: str, project: str, worlds: list[World]) -> None:
        """Start these ranks."""
        with (Path(folder) / LOG).open("ab") as log:
            self._processes = [
                subprocess.Popen(
                    [sys.executable, "-m", "tune.child", str(os.getpid()), str(Path(folder) / CONFIG)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=project,
                    env=child_environment(os.environ) | world.variables(),
                    start_new_session=True,
                )
                for world in worlds
            ]

    def codes(self) -> list[int | None]:
        """The exit codes of those that have ended."""
        return [process.poll() for process in self._processes]

    def send(self, number: int) -> None:
        """Signal those that have not."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)


class RanksOnNodes:
    """Starts ranks on all nodes of a trial's placement group; to be asked as a process.

    Args:
        nodes: how many hosts the group holds.
        ranks: on each.
        cpus: that each host has set aside.
        gpus: that each host has set aside.
        folder: of the run, with its settings; shared by the nodes.
        project: where relative paths start from.
    """

    def __init__(self, nodes: int, ranks: int, cpus: float, gpus: float, folder: Path, project: Path) -> None:
        group = get_current_placement_group()
        assert group is not None, "a trial on several nodes runs in a placement group"
        self._hosts: list[Any] = [
            ray.remote(Host)
            .options(
                num_cpus=cpus,
                num_gpus=gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
            )
            .remote()
            for index in range(nodes)
        ]
        address, port = ray.get(self._hosts[0].place.remote())
        worlds = [
            World(rank, nodes * ranks, rank % ranks, ranks, address, port, "torchrun") for rank in range(nodes * ranks)
        ]
        starts = [
            host.start.remote(str(folder), str(project), worlds[n * ranks : (n + 1) * ranks])
            for n, host in enumerate(self._hosts)
        ]
        ray.get(starts)
        self._failed_at: float | None = None

    def poll(self) -> int | None:
        """None while a rank runs; then the first code that is not 0, or 0. After a failure the others are ended."""
        codes = [code for host in ray.get([host.codes.remote() for host in self._hosts]) for code in host]
        bad = [code for code in codes if code]
        if None not in codes:
            return bad[0] if bad else 0
        if bad and self._failed_at is None:
            self._failed_at = time.monotonic()
            self.send_signal(signal.SIGTERM)
        elif self._failed_at is not None and time.monotonic() - self._failed_at > _GRACE_S:
            self.send_signal(signal.SIGKILL)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """The code once all have ended; raises subprocess.TimeoutExpired."""
        began = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() - began > timeout:
                raise subprocess.TimeoutExpired("pose train", timeout)
            time.sleep(0.2)
        return code

    def send_signal(self, number: int) -> None:
        """Signal all ranks."""
        ray.get([host.send.remote(number) for host in self._hosts])

    def kill(self) -> None:
        """End all ranks at once."""
        self.send_signal(signal.SIGKILL)
