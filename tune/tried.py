"""What a search has tried, and what a finite space still holds: a trial repeated gives the same score again."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from tune.records import TrialRecord
from tune.space import Choice, Dependent, Dimension, Range, Space, Values

_MOST_LISTED: Final = 100_000
"""Combinations that are gone through one by one."""


class Tried:
    """Configurations with what came of them.

    Args:
        space: that they are of.
        past: trials of earlier starts.
    """

    def __init__(self, space: Space, past: list[TrialRecord]) -> None:
        self._all = finite(space)
        self._scores: dict[str, dict[str, float]] = {}
        for record in past:
            self.note(record)

    def note(self, record: TrialRecord) -> None:
        """A trial was begun, or has ended."""
        good = record.status in ("finished", "stopped early")
        self._scores[_key(record.values)] = record.scores if good else {}

    def __contains__(self, values: Values) -> bool:
        """Whether it was begun."""
        return _key(values) in self._scores

    def scores(self, values: Values) -> dict[str, float]:
        """What a configuration that was begun has given; empty where it failed, or has not ended."""
        return self._scores[_key(values)]

    def left(self) -> list[Values]:
        """What has not been begun; empty for a space without end."""
        if self._all is None:
            return []
        return [values for values in itertools.islice(self._all.all(), _MOST_LISTED) if values not in self]


def finite(space: Space) -> Space | None:
    """The space with every number of its ranges listed; None where a range has no steps."""
    dimensions = []
    for one in space.dimensions:
        branches = one.domain.branches if isinstance(one.domain, Dependent) else {"": one.domain}
        listed = {name: _steps(domain) for name, domain in branches.items()}
        known = {name: domain for name, domain in listed.items() if domain is not None}
        if len(known) < len(listed):
            return None
        domain = Dependent(one.domain.by, known) if isinstance(one.domain, Dependent) else known[""]
        dimensions.append(Dimension(one.keys, domain))
    return Space(tuple(dimensions))


def combinations(space: Space) -> int:
    """How many configurations a space holds, up to 100 000 or those; 0 for a space without end."""
    listed = finite(space)
    found: Iterator[Values] = listed.all() if listed is not None else iter(())
    return sum(1 for _ in itertools.islice(found, _MOST_LISTED))


def _steps(domain: Choice | Range) -> Choice | Range | None:
    if isinstance(domain, Choice) or domain.step:
        return domain
    return replace(domain, step=1) if domain.whole else None


def _key(values: Values) -> str:
    return json.dumps(values, sort_keys=True)
