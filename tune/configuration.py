"""A search's settings and one choice from its space to the run of one trial. No torch here: each trial imports it."""

from dataclasses import fields
from pathlib import Path
from typing import Final

import yaml

from cluster.config import SettingsError, construct, dump
from cluster.settings import Run
from tune.settings import TuneSettings
from tune.space import Choice, Range, Space, Values, label

_MUTABLE: Final = ("optimizer.", "augment.", "augment_mpii.", "loss.")
"""What population-based training may change in a trial that has begun."""


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


def mutable(space: Space) -> dict[str, Choice | Range]:
    """What population-based training may change in a trial that has begun, by setting.

    Raises:
        SettingsError: the space holds what a trained network cannot change.
    """
    found: dict[str, Choice | Range] = {}
    for one in space.dimensions:
        fixed = [key for key in one.keys if not key.startswith(_MUTABLE)]
        if fixed or len(one.keys) > 1 or not isinstance(one.domain, Choice | Range):
            raise SettingsError(
                f"space: {', '.join(one.keys)}: search.scheduler pbt changes trials on their way, so it takes single"
                " settings of optimizer, augment and loss alone"
            )
        found[one.keys[0]] = one.domain
    return found
