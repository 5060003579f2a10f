"""Searches that stand on the disk: found by name, gone on with, never mixed with another, and how long they took."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from cluster.config import flatten, load
from cluster.run_folder import RUN_YAML
from cluster.tracking.journal import JOURNAL_NAME, read_records
from poselib.errors import InputError
from tune.records import SEARCH_YAML
from tune.settings import TuneSettings

_LIMITS: Final = tuple(f"search.{name}" for name in ("trials", "hours", "parallel", "cpus", "gpus"))


def load_search(runs_dir: Path, name: str) -> TuneSettings:
    """The settings that a search was started with.

    Raises:
        InputError: there is no such search.
    """
    path = runs_dir / name / SEARCH_YAML
    if not path.is_file():
        known = sorted(found.parent.name for found in runs_dir.glob(f"*/{SEARCH_YAML}"))
        there = f"there are {', '.join(known)}" if known else f"there is none in {runs_dir}"
        raise InputError(f"{runs_dir / name} is no search: {there}")
    return replace(load(TuneSettings, path), runs_dir=runs_dir)


def resumed_settings(given: TuneSettings) -> TuneSettings:
    """The settings of the search to go on with, under the limits that are given now.

    Raises:
        InputError: there is no such search, or something else than a limit is given.
    """
    settings = load_search(given.runs_dir, given.resume)
    defaults, now = flatten(TuneSettings(resume=given.resume, runs_dir=given.runs_dir)), flatten(given)
    changed = [key for key, value in now.items() if key in given.given or defaults.get(key) != value]
    strange = [key for key in changed if key not in (*_LIMITS, "resume", "runs_dir", "given")]
    if strange:
        raise InputError(f"--resume takes the settings that {given.resume} was started with, not {', '.join(strange)}")
    limits = {key.removeprefix("search."): now[key] for key in changed if key in _LIMITS}
    return replace(settings, search=replace(settings.search, **limits))


def refuse_existing(settings: TuneSettings, folder: Path) -> None:
    """Never mix a search with another, or with a run.

    Raises:
        InputError: the folder holds one.
    """
    if (folder / SEARCH_YAML).is_file():
        go_on = f"`pose tune --resume {settings.name}{settings.elsewhere}`"
        raise InputError(f"{folder} holds a search already; go on with it by {go_on}, or give this one another name")
    if any((folder / name).exists() for name in (RUN_YAML, JOURNAL_NAME)):
        raise InputError(f"{folder} holds a run; give the search another name")


def hours_spent(folder: Path) -> float:
    """How long the earlier starts of a search took together, as far as its journal tells."""
    if not (folder / JOURNAL_NAME).is_file():
        return 0.0
    spent, began, last = 0.0, 0.0, 0.0
    for record, _ in read_records(folder):
        if record.get("value") == "running":
            spent, began = spent + last - began, record["time"]
        last = record.get("time", last)
    return (spent + last - began) / 3600
