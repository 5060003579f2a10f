"""Scored runs side by side: read, checked to be comparable, cut down to the samples that all have."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.protocol import differences, read_card
from cluster.report.settings import ReportSettings
from cluster.run_folder import RUN_YAML
from cluster.samples import Samples, read_samples
from poselib.errors import InputError

_NAMES: Final = ("subjects", "actions", "cameras", "pictures", "frames")
"""What is said of a sample, whoever has scored it; another shard set may call an action otherwise."""


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """A run's score.

    Attributes:
        folder: of the run.
        label: its name on the page, unlike the others'.
        card: what its score card holds.
        samples: what was scored.
        whole: whether `samples` are all that the card is about.
    """

    folder: Path
    label: str
    card: dict[str, Any]
    samples: Samples
    whole: bool = True


def read_runs(settings: ReportSettings) -> list[ScoredRun]:
    """The runs' scores, over the same samples in the same order.

    Raises:
        InputError: no run, no score, scores of different protocols, or of no common sample.
    """
    labels = _labels(settings.runs)
    runs = [_read(folder, label, settings.score) for folder, label in zip(settings.runs, labels, strict=True)]
    for other in runs[1:]:
        different = protocol_differences(runs[0], other)
        if different and not settings.across_protocols:
            raise InputError(
                f"{other.folder} was scored by another protocol than {runs[0].folder} ({'; '.join(different)}); score"
                " both alike, or give --across_protocols true"
            )
    return _in_common(runs)


def protocol_differences(one: ScoredRun, other: ScoredRun) -> list[str]:
    """What keeps two scores from being compared, as `key: of one / of other`."""
    return differences(one.card["protocol"], other.card["protocol"])


def takes(samples: Samples) -> np.ndarray:
    """For each sample, the number of its take: one performance of one action, in all its cameras and frames.

    A key is `SUBJECT_ACTION_SUBACTION_CAMERA_FRAME`; of other keys, all of one subject and action are a take.
    """
    names = []
    for key, camera, frame, subject, action in zip(
        samples.keys, samples.cameras, samples.frames, samples.subjects, samples.actions, strict=True
    ):
        take = str(key).removesuffix(f"_{camera}_{frame:06d}")
        names.append(take if take != key else f"{subject} {action}")
    return np.unique(names, return_inverse=True)[1]


def _read(folder: Path, label: str, score: str) -> ScoredRun:
    if not folder.is_dir():
        raise InputError(f"{folder} is no run: there is no such folder")
    if not (folder / RUN_YAML).is_file():
        raise InputError(f"{folder} is no run: it holds no {RUN_YAML}")
    path = folder / f"{score}.json"
    if not path.is_file():
        others = sorted(found.stem for found in folder.glob("score*.json") if found.with_suffix(".npz").is_file())
        hint = f"--score {others[0]} is there" if others else f"run `pose eval {folder}` first"
        raise InputError(f"{folder} has no {path.name}; {hint}")
    card = read_card(path)
    samples = read_samples(path, card)
    if not len(samples):
        raise InputError(f"{path.with_suffix('.npz')}: holds no sample; run `pose eval {folder}` again")
    return ScoredRun(folder, label, card, samples)


def _labels(folders: Sequence[Path]) -> list[str]:
    """Names of the folders, with as much of the path before them as tells them apart, or else numbered."""
    paths = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, paths)) + 1):
        labels = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{path[-1]} ({number})" for number, path in enumerate(paths, 1)]


def _in_common(runs: list[ScoredRun]) -> list[ScoredRun]:
    """The runs, each with the samples that all of them have, in the first one's order and by its names."""
    if not all(np.array_equal(run.samples.keys, runs[0].samples.keys) for run in runs):
        common = set.intersection(*(set(run.samples.keys.tolist()) for run in runs))
        if not common:
            names = " and ".join(str(run.folder) for run in runs)
            raise InputError(f"{names} were scored on different samples, none in common; score them on one shard set")
        order = [key for key in runs[0].samples.keys.tolist() if key in common]
        runs = [_restrict(run, order) for run in runs]
    named = {name: getattr(runs[0].samples, name) for name in _NAMES}
    return [replace(run, samples=replace(run.samples, **named)) for run in runs]


def _restrict(run: ScoredRun, keys: list[str]) -> ScoredRun:
    place = {key: number for number, key in enumerate(run.samples.keys.tolist())}
    chosen = np.array([place[key] for key in keys])
    columns = {entry.name: getattr(run.samples, entry.name)[chosen] for entry in fields(Samples)}
    return replace(run, samples=Samples(**columns), whole=len(chosen) == len(run.samples))
