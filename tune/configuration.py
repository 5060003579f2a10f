"""A search's settings and one choice from its space to the run of one trial; and every choice checked beforehand."""

import itertools
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from cluster.config import SettingsError, construct, dump
from cluster.launch import default_ranks
from cluster.preflight import check
from cluster.settings import Run
from poselib.errors import InputError
from shards.augment import check_cover
from shards.manifest import open_manifest
from shards.records import Manifest
from tune.geometry import every_crop
from tune.settings import TuneSettings
from tune.space import Choice, Range, Space, Values, label, list_domain

MOST_CHECKED: Final = 60
"""Configurations tried before a search starts; larger spaces are sampled."""
_CHANGES_WEIGHTS: Final = ("model.", "data.", "batch.", "seed", "weights", "init_")


def folder_of(settings: TuneSettings) -> Path:
    """Where everything of a search stands; its trials are folders in it."""
    return (settings.runs_dir / settings.name).resolve()


def trial_name(number: int) -> str:
    """The name of a trial's folder."""
    return f"t{number:04}"


def trial_run(settings: TuneSettings, values: Values, name: str) -> Run:
    """The run of a trial: the search's own settings with `values` over them.

    Raises:
        SettingsError: the values do not go together; names them.
    """
    written = yaml.safe_load(dump(settings))
    plain = {key: value for key, value in written.items() if key in _RUN_KEYS}
    for key, value in values.items():
        *groups, last = key.split(".")
        inner = plain
        for group in groups:
            inner = inner[group]
        inner[last] = value
    plain |= {"name": name, "runs_dir": str(folder_of(settings))}
    plain["tracking"] |= {"enabled": False}  # the driver alone delivers
    chosen = ", ".join(f"{key} {label(value)}" for key, value in values.items())
    return construct(Run, yaml.safe_dump(plain), f"space: with {chosen}")


_RUN_KEYS: Final = {field.name.rstrip("_") for field in fields(Run)}


def check_space(settings: TuneSettings, space: Space) -> int:
    """Refuse a space in which a trial could not start; returns how many configurations were tried.

    Each is built as a run and held against what the shards cover; the first is checked as `pose train` checks it.

    Raises:
        SettingsError: a value is out of range, or values do not go together.
        InputError: crops look beyond the stored pictures, or data and batch do not fit.
    """
    _check_searcher(settings, space)
    sets: dict[str, Manifest] = {}
    count = 0
    for values in _examples(space):
        run = trial_run(settings, values, "check")
        if not count:
            check(run, _world_size(settings, run))
        _check_run(run, values, sets)
        count += 1
    for values, cropped in every_crop(run, space):
        _check_run(cropped, values, sets)
    return count


def mutable(space: Space) -> dict[str, Choice | Range]:
    """What population-based training may change in a trial that has begun, by setting.

    Raises:
        SettingsError: the space holds what a trained network cannot change.
    """
    found: dict[str, Choice | Range] = {}
    for one in space.dimensions:
        fixed = [key for key in one.keys if key.startswith(_CHANGES_WEIGHTS)]
        if fixed or len(one.keys) > 1 or not isinstance(one.domain, Choice | Range):
            raise SettingsError(
                f"space: {', '.join(one.keys)}: search.scheduler pbt changes trials on their way, so it takes single"
                " settings of optimizer, augment and loss alone"
            )
        found[one.keys[0]] = one.domain
    return found


def _world_size(settings: TuneSettings, run: Run) -> int:
    """The ranks of a trial."""
    search = settings.search
    if search.nodes > 1 or search.gpus >= 1:
        return search.nodes * (run.engine.ranks or max(1, int(search.gpus)))
    return run.engine.ranks or default_ranks(run.engine.device)


def _check_searcher(settings: TuneSettings, space: Space) -> None:
    """What only some searchers can do."""
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


def _check_run(run: Run, values: Values, sets: dict[str, Manifest]) -> None:
    """Hold a run's crops against what its shard sets store."""
    sources = [(run.data.h36m, run.augment)]
    if run.data.mpii is not None:
        sources.append((run.data.mpii, run.augment_mpii))
    try:
        for folder, augment in sources:
            if folder not in sets:
                sets[folder] = open_manifest(folder, run.loader.storage)
            stored = sets[folder]
            check_cover((stored.cover_width, stored.cover_height), augment, run.crop, run.model, folder)
        if run.data.voc is None and any(augment.occluders for _, augment in sources):
            raise InputError("augment.occluders pastes objects, but data.voc names no bank of them")
    except InputError as error:
        chosen = ", ".join(f"{key} {label(value)}" for key, value in values.items())
        raise InputError(f"space: with {chosen}: {error}") from error


def base_run(settings: TuneSettings) -> Run:
    """The search's own settings as a run, nothing chosen."""
    return replace(trial_run(settings, {}, "base"), name=settings.name)
