"""What of a search can be refused before anything starts."""

import difflib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from cluster.config import SettingsError
from cluster.launch import default_ranks
from cluster.preflight import check
from cluster.settings import Run
from cluster.training_record import LOGGED
from poselib.errors import InputError
from shards.augment import check_cover
from shards.manifest import open_manifest
from shards.records import Manifest
from tune.configuration import mutable, trial_run
from tune.geometry import every_crop
from tune.settings import TuneSettings
from tune.space import Choice, Range, Space, Values, label, list_domain

MOST_CHECKED: Final = 60
"""Configurations tried before a search starts; larger spaces are sampled."""
_NOT_COMPARABLE: Final = ("epochs", "validate_every", "log_every")
"""What trials must have in common: schedulers, scores and curves compare by epochs."""
_PREFLIGHT: Final = ("model.", "data.", "batch.", "seed", "weights", "init_", "loader.", "engine.")
"""What `pose train` checks before it starts."""


def check_space(settings: TuneSettings, space: Space) -> int:
    """Refuse a space in which a trial could not start; returns how many configurations were tried.

    Each is built as a run, every combination of crops is held against what the shards cover, and those that differ in
    data, model, batch or first weights are checked as `pose train` checks them.

    Raises:
        SettingsError: a value is out of range, or values do not go together.
        InputError: crops look beyond the stored pictures, or data and batch do not fit.
    """
    _check_metrics(settings)
    _check_searcher(settings, space)
    sets: dict[str, Manifest] = {}
    checked = set[str]()
    count = 0
    for values in _examples(space):
        run = trial_run(settings, values, "check")
        decides = label({key: value for key, value in values.items() if key.startswith(_PREFLIGHT)})
        with _naming(values):
            _check_run(run, sets)
            if decides not in checked:
                check(run, _world_size(settings, run))
        checked.add(decides)
        count += 1
    for values, cropped in every_crop(run, space):
        with _naming(values):
            _check_run(cropped, sets)
    return count


def _world_size(settings: TuneSettings, run: Run) -> int:
    """The ranks of a trial."""
    search = settings.search
    if search.nodes > 1 or search.gpus:
        return search.nodes * (run.engine.ranks or max(1, int(search.gpus)))
    return run.engine.ranks or default_ranks(run.engine.device)


def _check_metrics(settings: TuneSettings) -> None:
    """Only what every training logs can be searched by."""
    for name in settings.search.metrics:
        if name not in LOGGED:
            near = difflib.get_close_matches(name, LOGGED, n=1, cutoff=0.0)[0]
            raise SettingsError(f"search.metrics: no training logs {name!r}; the nearest that it does is {near!r}")


def _check_searcher(settings: TuneSettings, space: Space) -> None:
    """What only some searchers can do, and what none can."""
    for key in (key for one in space.dimensions for key in one.keys if key in _NOT_COMPARABLE):
        raise SettingsError(f"space: {key} cannot be searched: trials are compared by epochs; set it for all of them")
    if settings.search.scheduler == "pbt":
        mutable(space)
    if settings.search.searcher != "grid":
        return
    for one in space.dimensions:
        domains = [one.domain] if isinstance(one.domain, Choice | Range) else one.domain.branches.values()
        if any(isinstance(domain, Range) and not domain.step for domain in domains):
            raise SettingsError(f"space: {', '.join(one.keys)}: a grid needs a list of values, or a range with a step")


def _examples(space: Space) -> Iterator[Values]:
    """All configurations of a small space; of a large one every value once, corners and draws."""
    every = list(itertools.islice(space.all(), MOST_CHECKED + 1))
    if len(every) <= MOST_CHECKED:
        yield from every
        return
    generator = np.random.default_rng(0)

    def pick(_: str, domain: Choice | Range) -> Any:
        listed = list_domain(domain)
        return listed[int(generator.integers(len(listed)))]

    diagonals = list(itertools.islice(space.diagonals(), MOST_CHECKED))
    yield from diagonals
    yield from (space.draw(pick) for _ in range(max(MOST_CHECKED - len(diagonals), MOST_CHECKED // 2)))


def _check_run(run: Run, sets: dict[str, Manifest]) -> None:
    """Hold a run's crops against what its shard sets store."""
    sources = [(run.data.h36m, run.augment)]
    if run.data.mpii is not None:
        sources.append((run.data.mpii, run.augment_mpii))
    for folder, augment in sources:
        if folder not in sets:
            sets[folder] = open_manifest(folder, run.loader.storage)
        stored = sets[folder]
        check_cover((stored.cover_width, stored.cover_height), augment, run.crop, run.model, folder)
    if run.data.voc is None and any(augment.occluders for _, augment in sources):
        raise InputError("augment.occluders pastes objects, but data.voc names no bank of them")


@contextmanager
def _naming(values: Values) -> Iterator[None]:
    """Name the configuration in what is wrong with it."""
    try:
        yield
    except InputError as error:
        chosen = ", ".join(f"{key} {label(value)}" for key, value in values.items())
        raise InputError(f"space: with {chosen}: {error}") from error
