"""Every crop that a space may ask for, to be held against what the shards store: the rest of a space is sampled."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from cluster.settings import Run
from tune.space import Space, Values

MOST: Final = 50_000
"""Combinations looked at; each takes a tenth of a millisecond."""
_DECIDE: Final = (
    *("crop.", "model.crop_", "data.h36m", "data.mpii", "data.voc"),
    *(f"{group}.{name}" for group in ("augment", "augment_mpii") for name in ("zoom", "rotation", "occluders")),
)
"""Settings that decide how far crops look, into what, and whether objects are pasted."""


def every_crop(run: Run, space: Space) -> Iterator[tuple[Values, Run]]:
    """The runs of all combinations of such settings; of ranges without step the ends, where crops look furthest.

    Args:
        run: with a value for every setting; only those of the space are replaced.
        space: of the search.

    Yields:
        What was chosen, and the run. Combinations that no run can have are left out.
    """
    for values in itertools.islice(space.part(_DECIDE).all(), MOST):
        chosen = {key: value for key, value in values.items() if key.startswith(_DECIDE)}
        try:
            yield values, _with(run, chosen)
        except ValueError:  # they do not go together, which a trial will say that draws them
            continue


def _with(run: Run, values: Values) -> Run:
    """A run with other values of some settings, all of them in groups of their own."""
    groups: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = tuple(value) if isinstance(value, list) else value
    return replace(run, **{group: replace(getattr(run, group), **chosen) for group, chosen in groups.items()})
