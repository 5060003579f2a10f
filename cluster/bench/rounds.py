"""Forms that take turns, each in processes of its own, and how their times compare."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.bench.settings import Clock
from cluster.world import World, free_port
from poselib.errors import InputError

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Form:
    """What a process shall hold.

    Attributes:
        name: in tables.
        yaml: of the run.
        kind: `ours` or `usual`.
        ranks: processes.
        loader: batches come from the loader.
        tree: whose code is measured.
    """

    name: str
    yaml: str
    kind: str = "ours"
    ranks: int = 1
    loader: bool = False
    tree: Path = ROOT


class Team:
    """The ranks of a form: `with Team(form) as team`. They wait between their turns and take no time then.

    Raises:
        InputError: a rank cannot do it; in its words.
    """

    def __init__(self, form: Form, keep_pages: bool = True) -> None:
        from cluster.launch import KEEP_PAGES

        self.form, port = form, free_port()
        spec = json.dumps({"yaml": form.yaml, "form": form.kind, "loader": form.loader})
        command = [sys.executable, "-W", "ignore", "-P", str(WORKER), spec]
        pages = KEEP_PAGES if keep_pages and form.kind == "ours" else {}
        self._ranks = []
        for rank in range(form.ranks):
            world = World(rank, form.ranks, rank, form.ranks, port=port).variables()
            environment = dict(os.environ) | pages | world | {"PYTHONPATH": str(form.tree)}
            pipe = subprocess.PIPE
            self._ranks.append(
                subprocess.Popen(
                    command, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
                )
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
            process.stdin.close()
            process.stdout.close()
        for process in self._ranks:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ask(self, what: str, *arguments: Any) -> dict[str, float]:
        """Have all ranks do something; what rank 0 says of it."""
        for process in self._ranks:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps([what, *arguments]), file=process.stdin, flush=True)
        answers: list[dict[str, Any]] = []
        for process in self._ranks:
            assert process.stdout is not None
            line = process.stdout.readline()
            answers.append(json.loads(line) if line else {"error": f"a process ended (exit {process.wait()})"})
            if "error" in answers[-1]:
                raise InputError(f"{self.form.name}: {answers[-1]['error']}")
        return answers[0]


def alternate(teams: Sequence[Team], rounds: int, steps: int, clock: Clock = "wall") -> dict[str, list[float]]:
    """Seconds per step of each form in each round, after a turn to warm up; forms take turns within a round."""
    key = {"wall": "seconds", "cpu": "cpu_seconds"}[clock]
    for team in teams:
        team.ask("start")
    for team in teams:
        team.ask("steps", 1)
    seconds: dict[str, list[float]] = {team.form.name: [] for team in teams}
    for _ in range(rounds):
        for team in teams:
            seconds[team.form.name].append(team.ask("steps", steps)[key])
    return seconds


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one form is as another, over rounds.

    Attributes:
        median: of the rounds' ratios.
        spread: their middle half, as a share of the median.
        least: the smallest one.
        most: the largest one.
    """

    median: float
    spread: float
    least: float
    most: float

    def verdict(self, target: float, most_spread: float) -> str:
        """Whether the target is reached, or that the machine was too busy to say."""
        if self.spread > most_spread:
            return f"no verdict: a busy machine, rounds spread by {self.spread:.0%}, above {most_spread:.0%}"
        return f"{'reached' if self.median >= target else 'missed'}: {target:g} wanted"


def compare(fast: Sequence[float], slow: Sequence[float]) -> Ratio:
    """Of times of the same rounds."""
    ratios = [b / a for a, b in zip(fast, slow, strict=True)]
    quarters = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
    median = statistics.median(ratios)
    return Ratio(median, (quarters[2] - quarters[0]) / median, min(ratios), max(ratios))


def as_rows(seconds: Mapping[str, Sequence[float]], images: int) -> dict[str, dict[str, float]]:
    """Median milliseconds and images/s of each form, and how far its rounds spread."""
    rows = {}
    for name, times in seconds.items():
        own = compare([1.0] * len(times), times)
        rows[name] = {"ms": 1e3 * own.median, "img_per_s": images / own.median, "spread": own.spread}
    return rows
