"""Forms that take turns, each in processes of its own."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.bench.settings import Clock
from cluster.config import construct
from cluster.settings import Run
from cluster.world import World, free_port
from poselib.errors import InputError

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("worker.py")
TIMES: dict[Clock, str] = {"wall": "seconds", "cpu": "cpu_seconds"}
"""What a turn's answer calls the time by each clock."""


@dataclass(frozen=True)
class Form:
    """What a process shall hold.

    Attributes:
        name: in tables.
        yaml: of the run.
        kind: `ours` or `usual`.
        loader: batches come from the loader.
        tree: whose code is measured.
    """

    name: str
    yaml: str
    kind: str = "ours"
    loader: bool = False
    tree: Path = ROOT

    @cached_property
    def run(self) -> Run:
        """The run itself."""
        return construct(Run, self.yaml, self.name)

    @property
    def ranks(self) -> int:
        """Processes."""
        return self.run.engine.ranks or 1

    @property
    def images(self) -> int:
        """Of one step of all ranks."""
        return self.run.batch.micro * self.ranks

    @property
    def precision(self) -> str:
        """What it computes in."""
        return "fp32" if self.kind == "usual" else self.run.engine.precision


class Team:
    """The ranks of a form: `with Team(form) as team`. They wait between their turns and take no time then.

    Raises:
        InputError: a rank cannot do it; in its words, with the file that holds all it said where those do not help.
    """

    def __init__(self, form: Form) -> None:
        from cluster.launch import KEEP_PAGES

        self.form, port = form, free_port()
        spec = json.dumps({"yaml": form.yaml, "form": form.kind, "loader": form.loader})
        command = [sys.executable, "-W", "ignore", "-P", str(WORKER), spec]
        pages = KEEP_PAGES if form.kind == "ours" else {}
        path = os.pathsep.join(filter(None, [str(form.tree), os.environ.get("PYTHONPATH")]))
        ranks = form.ranks
        handle, self.log = tempfile.mkstemp(prefix="pose-bench-", suffix=".log")
        self._ranks = []
        with open(handle, "wb") as log:  # noqa: PTH123
            for rank in range(ranks):
                world = World(rank, ranks, rank, ranks, port=port).variables()
                environment = dict(os.environ) | pages | world | {"PYTHONPATH": path}
                pipe = subprocess.PIPE
                self._ranks.append(
                    subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=log, text=True)
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._ranks:
            if kind is not None:
                process.kill()
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
        for process in self._ranks:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.log not in str(value):
            Path(self.log).unlink()

    def ask(self, what: str, *arguments: Any) -> dict[str, Any]:
        """Have all ranks do something; what rank 0 says of it."""
        self.tell(what, *arguments)
        return self.hear()

    def tell(self, what: str, *arguments: Any) -> None:
        """Have all ranks begin something; `hear` waits for its end."""
        for process in self._ranks:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps([what, *arguments]), file=process.stdin, flush=True)

    def hear(self) -> dict[str, Any]:
        """What rank 0 says of what all were told."""
        answers: list[dict[str, Any]] = []
        for process in self._ranks:
            assert process.stdout is not None
            line = process.stdout.readline()
            answers.append(json.loads(line) if line else {"error": f"a process ended (exit {process.wait()})"})
            if "error" in answers[-1]:
                more = "" if answers[-1].get("mendable") else f"; all that it said is in {self.log}"
                raise InputError(f"{self.form.name}: {answers[-1]['error']}{more}")
        return answers[0]


@dataclass(frozen=True)
class Turns:
    """How forms take turns.

    Attributes:
        rounds: turns of each form.
        steps: of a turn; more where batches are made ahead, see `Rank.steps`.
        clock: what counts.
    """

    rounds: int
    steps: int
    clock: Clock = "wall"


@dataclass(frozen=True)
class Played:
    """What a form's turns gave.

    Attributes:
        first_loss: of the first step.
        seconds: per picture, of each round.
        bytes: peak memory of each round's turn.
    """

    first_loss: float
    seconds: list[float]
    bytes: list[float]


def alternate(teams: Sequence[Team], how: Turns) -> dict[str, Played]:
    """Start and warm up all forms at the same time, then let them take turns within each round."""
    for team in teams:
        team.tell("warm_up")
    played = {team.form.name: Played(team.hear()["first_loss"], [], []) for team in teams}
    for _ in range(how.rounds):
        for team in teams:
            turn, own = team.ask("steps", how.steps), played[team.form.name]
            own.seconds.append(turn[TIMES[how.clock]] / team.form.images)
            own.bytes.append(turn["bytes"])
    return played
