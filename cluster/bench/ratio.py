"""How times and figures of several rounds compare, and the one rule for when they allow a verdict. No torch here."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FEWEST_ROUNDS: Final = 3
"""Fewer tell nothing of their spread."""


@dataclass(frozen=True)
class Ratio:
    """A figure over rounds, such as how many times as fast one form is as another.

    Attributes:
        median: of the rounds.
        spread: their middle half, as a share of the median.
        least: the smallest one.
        most: the largest one.
        rounds: how many.
    """

    median: float
    spread: float
    least: float
    most: float
    rounds: int

    def doubt(self, most_spread: float) -> str:
        """Why there can be no verdict: too few rounds, or a busy machine; empty where there can."""
        if self.rounds < FEWEST_ROUNDS:
            return f"no verdict: {self.rounds} of at least {FEWEST_ROUNDS} rounds"
        if self.spread > most_spread:
            return f"no verdict: a busy machine, rounds spread by {self.spread:.0%}, above {most_spread:.0%}"
        return ""

    def verdict(self, target: float, most_spread: float, at_most: bool = False) -> str:
        """Whether the target is reached: `target` or more, or `at_most` that; or why nobody can say."""
        reached = self.median <= target if at_most else self.median >= target
        bound = f"at most {target:g}" if at_most else f"{target:g}"
        return self.doubt(most_spread) or f"{'reached' if reached else 'missed'}: {bound} wanted"

    def direction(self, most_spread: float) -> str:
        """Faster or slower; neither where the rounds do not agree, or where there is a doubt."""
        if self.doubt(most_spread):
            return "no verdict"
        if self.least <= 1 <= self.most:
            return "no difference"
        return "faster" if self.median > 1 else "slower"

    def told(self) -> str:
        """The median, with the least and the most."""
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def over_rounds(values: Sequence[float]) -> Ratio:
    """A figure of each round as one."""
    median = statistics.median(values)
    quarters = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [median] * 3
    spread = (quarters[2] - quarters[0]) / median if median else 0.0
    return Ratio(median, spread, min(values), max(values), len(values))


def compare(fast: Sequence[float], slow: Sequence[float]) -> Ratio:
    """How many times as long the slow ones take as the fast ones of the same rounds."""
    return over_rounds([b / a for a, b in zip(fast, slow, strict=True)])
