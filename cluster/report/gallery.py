"""Samples that a report shows: which ones, and their pictures."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import yaml

from cluster.report.scored import ScoredRun
from cluster.run_folder import RUN_YAML
from poselib.camera import crop_from_box, fit_aspect
from poselib.errors import InputError
from shards.manifest import DamagedSample, ShardSet

_LARGE_PX: Final = 256
_SMALL_PX: Final = 192
_MANY: Final = 150
"""More samples than this get smaller pictures: the page stays below 15 MB."""
_QUALITY: Final = 80


@dataclass(frozen=True)
class Group:
    """Samples that have something in common, the most telling first: places in the gallery's list."""

    title: str
    members: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Photo:
    """What was filmed.

    Attributes:
        jpeg: the person's box, widened to a square.
        from_stored: `2 3`, from px of the stored picture to px of this one.
        side_px: of this square picture.
    """

    jpeg: bytes
    from_stored: np.ndarray
    side_px: int


def choose(runs: list[ScoredRun], most: int) -> tuple[np.ndarray, list[Group]]:
    """Which samples to show, as places among the runs' samples, and in which groups.

    Of one run the worst, the median and the best; of several the first one's worst and median, and where each other
    one gains and loses most against it.
    """
    errors = np.stack([run.samples.errors_mm.astype(np.float64) for run in runs])
    order = np.argsort(errors[0], kind="stable")
    # From the middle outwards.
    median = order[np.argsort(np.abs(np.arange(len(order)) - (len(order) - 1) / 2), kind="stable")]
    if len(runs) == 1:
        wanted = {"Worst": order[::-1], "Median": median, "Best": order}
    else:
        wanted = {f"Worst of {runs[0].label}": order[::-1], f"Median of {runs[0].label}": median}
        for run, own in zip(runs[1:], errors[1:], strict=True):
            gain = np.argsort(own - errors[0], kind="stable")
            wanted |= {f"{run.label} gains most": gain, f"{run.label} loses most": gain[::-1]}
    share = -(-most // len(wanted))
    places: dict[int, int] = {}
    groups = []
    for title, candidates in wanted.items():
        fresh = [place for place in candidates.tolist() if place not in places][: min(share, most - len(places))]
        # One that another group shows already is no less worth showing here.
        members = [place for place in candidates.tolist()[:share] if place in places] + fresh
        members.sort(key=candidates.tolist().index)
        places |= {place: len(places) + number for number, place in enumerate(fresh)}
        groups.append(Group(title, tuple(places[place] for place in members)))
    return np.array(list(places)), [group for group in groups if group.members]


def open_shards(run: ScoredRun, h36m: str | None) -> ShardSet:
    """The shard set that a run was scored on.

    Raises:
        InputError: it is not there, or another one.
    """
    folder = h36m or _named_in_run(run)
    shards = ShardSet.open(folder)
    if shards.manifest.set_hash != run.card["protocol"].get("shard set"):
        raise InputError(f"{folder} is not the shard set that {run.folder} was scored on")
    return shards


def read_photo(shards: ShardSet, row: int, side_px: int) -> Photo | None:
    """The picture of a sample; None where it is damaged."""
    try:
        sample = shards.read(row)
    except DamagedSample:
        return None
    stored = cv2.imdecode(np.frombuffer(sample.jpeg, np.uint8), cv2.IMREAD_COLOR)
    if stored is None:
        return None
    box = fit_aspect(sample.arrays["box"].astype(np.float64), 1.0)
    # Cut out finer than shown: the area average that follows leaves no jagged lines.
    fine = max(1, round(min(4.0, box[2] / side_px)))
    from_stored = crop_from_box(box, side_px * fine, side_px * fine)
    # OpenCV counts from the centre of the first pixel.
    matrix = from_stored.copy()
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    cut = cv2.warpAffine(stored, matrix, (side_px * fine, side_px * fine), flags=cv2.INTER_LINEAR)
    if fine > 1:
        cut = cv2.resize(cut, (side_px, side_px), interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", cut, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return Photo(data.tobytes(), from_stored / fine, side_px)


def side_px(samples: int) -> int:
    """How large the pictures of so many samples are."""
    return _LARGE_PX if samples <= _MANY else _SMALL_PX


def _named_in_run(run: ScoredRun) -> str:
    try:
        return str(yaml.safe_load((run.folder / RUN_YAML).read_text())["data"]["h36m"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(f"{run.folder / RUN_YAML} names no data.h36m; give --h36m") from error
