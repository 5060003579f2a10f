"""MPII Human Pose in its official layout: one .mat of annotations and a folder of pictures.

A part is a run of training pictures. Only people with joints are taken; test pictures have none.
"""

import errno
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import scipy.io

from poselib.camera import fit_aspect, tight_box
from poselib.errors import InputError
from poselib.skeleton import H36M_FROM_MPII, H36M_JOINTS, MPII_JOINTS
from shards.readers.mpii_lists import describe_split, find_list, part_of
from shards.readers.pictures import inner_path, lacking, load_picture
from shards.records import Skipped
from shards.sample import Names
from shards.settings import BuildSettings
from shards.source import Part, Person, Reader, Survey, outside, plain_key

PICTURES_PER_PART: Final = 400
REFERENCE_PX: Final = 200.0
"""A person of scale 1 is this tall."""
BOX_MARGIN: Final = 1.25
BOX_DOWN: Final = 15.0
"""HRNet moves the box down by this many px per unit of scale, since `objpos` sits on the upper body."""
HEAD_BIAS: Final = 0.6
"""PCKh's head size is this share of the head box' diagonal, as in the official evaluation."""
ONE_BASED: Final = 0.5
"""Annotations count pixel centres from 1; ours sit at 0.5."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """One annotated person, px of its picture in our convention.

    Attributes:
        index: its place among the picture's people, from 0.
        joints: `16 3`: x, y, and 1 where annotated.
        centre: `2`.
        scale: height over 200 px.
        head_size: px; 0 where there is no head box.
    """

    index: int
    joints: np.ndarray
    centre: np.ndarray
    scale: float
    head_size: float


@dataclass(frozen=True)
class Picture:
    """One picture's name, its part (train or val), its people, and what is wrong with those left out."""

    name: str
    part: str
    people: tuple[Annotation, ...]
    faults: tuple[str, ...]


def detect(raw: Path) -> bool:
    """Whether `raw` holds this layout."""
    return _annotation_file(raw) is not None and (raw / "images").is_dir()


def parts(settings: BuildSettings) -> list[Part]:
    """Runs of 400 training pictures in the order of the annotations.

    Raises:
        InputError: the .mat cannot be read or holds no annotated people, or the list of validation pictures does not
            fit it.
    """
    path = _annotation_file(settings.raw)
    if path is None:
        raise InputError(f"{settings.raw} holds no mpii_human_pose*.mat")
    listed = find_list(settings)
    pictures, names = [], set()
    for number, entry in enumerate(_training_entries(path)):
        name = str(getattr(getattr(entry, "image", None), "name", ""))
        names.add(inner_path(name, path) if name else "")
        people, wrong = _people(entry)
        if people and not name:
            people, wrong = [], [f"training picture {number} of {path.name} has no image name"]
        if people or wrong:
            pictures.append(Picture(name, part_of(name, listed), tuple(people), tuple(wrong)))
    if listed:
        listed.check_known(names)
    if not any(picture.people for picture in pictures):
        raise InputError(f"{path} holds no training picture with annotated people")
    starts = range(0, len(pictures), PICTURES_PER_PART)
    return [
        Part(f"mpii_{index:04d}", tuple(pictures[start : start + PICTURES_PER_PART]))
        for index, start in enumerate(starts)
    ]


def read(settings: BuildSettings, part: Part) -> Iterator[Person | Skipped]:
    """The people of a run of pictures."""
    for picture in part.content:
        file = f"images/{picture.name}"
        for fault in picture.faults:
            yield Skipped(file, -1, fault)
        if not picture.people:
            continue
        try:
            pixels = load_picture(settings.raw / file)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            yield Skipped(file, -1, reason, len(picture.people))
            continue
        for person in picture.people:
            yield _person(settings, picture, person, pixels)


def faults(settings: BuildSettings) -> tuple[str, ...]:
    """MPII has no known faults beyond those that reading finds."""
    return ()


def split(settings: BuildSettings) -> str:
    """How training and validation pictures were told apart."""
    return describe_split(find_list(settings))


def survey(settings: BuildSettings, part: Part) -> Survey:
    """People by part of the set, and what is not there."""
    counts: Counter[tuple[str, str, str]] = Counter()
    damage = []
    missing = lacking(settings.raw, [f"images/{picture.name}" for picture in part.content if picture.people])
    for picture in part.content:
        file = f"images/{picture.name}"
        damage += [Skipped(file, -1, fault) for fault in picture.faults]
        if file in missing:
            damage.append(Skipped(file, -1, os.strerror(errno.ENOENT), len(picture.people)))
        elif picture.people:
            counts[picture.part, "", ""] += len(picture.people)
    return Survey(dict(counts), (), tuple(damage))


READER: Final = Reader(
    "mpii", "people", "mpii_human_pose*.mat beside images/", detect, parts, read, faults, split, survey
)


def _annotation_file(raw: Path) -> Path | None:
    found = sorted(raw.glob("mpii_human_pose*.mat")) + sorted(raw.glob("mpii_human_pose*/mpii_human_pose*.mat"))
    return found[0] if found else None


def _training_entries(path: Path) -> list[Any]:
    try:
        release = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)["RELEASE"]
        entries, is_training = _as_list(release.annolist), np.atleast_1d(release.img_train)
    except Exception as error:  # SciPy lets whatever it meets in damaged bytes escape
        raise InputError(f"{path} cannot be read: it must hold RELEASE.annolist and RELEASE.img_train") from error
    if len(entries) != len(is_training):
        raise InputError(f"{path}: annolist has {len(entries)} entries, img_train {len(is_training)}")
    return [entry for entry, training in zip(entries, is_training, strict=True) if training]


def _as_list(value: Any) -> list[Any]:
    """A struct array as a list, however many elements it had: SciPy's squeezing turns one into a scalar."""
    if value is None:
        return []
    return list(value.ravel()) if isinstance(value, np.ndarray) else [value]


def _number(struct: Any, name: str) -> float:
    """A numeric field, NaN where it is missing or empty."""
    try:
        values = np.asarray(getattr(struct, name, np.nan), dtype=np.float64).ravel()
    except (TypeError, ValueError):
        return np.nan
    return float(values[0]) if values.size else np.nan


def _people(entry: Any) -> tuple[list[Annotation], list[str]]:
    """The annotated people of a picture, and what is wrong with the others; a person without joints is neither."""
    people, wrong = [], []
    for index, rect in enumerate(_as_list(getattr(entry, "annorect", None))):
        points = _as_list(getattr(getattr(rect, "annopoints", None), "point", None))
        if not points:
            continue
        centre = np.array([_number(getattr(rect, "objpos", None), axis) for axis in ("x", "y")])
        scale = _number(rect, "scale")
        if not np.isfinite(centre).all() or not scale > 0:
            wrong.append(f"person {index} has joints but no scale or objpos")
            continue
        head = np.array([_number(rect, name) for name in ("x1", "y1", "x2", "y2")])
        head_size = HEAD_BIAS * float(np.hypot(*(head[2:] - head[:2]))) if np.isfinite(head).all() else 0.0
        people.append(Annotation(index, _joints(points), centre - ONE_BASED, scale, head_size))
    return people, wrong


def _joints(points: list[Any]) -> np.ndarray:
    joints = np.zeros((len(MPII_JOINTS), 3))
    for point in points:
        index, x, y = (_number(point, name) for name in ("id", "x", "y"))
        if np.isfinite([index, x, y]).all() and 0 <= index < len(joints):
            joints[int(index)] = x - ONE_BASED, y - ONE_BASED, 1.0
    return joints


def _person(settings: BuildSettings, picture: Picture, person: Annotation, pixels: np.ndarray) -> Person | Skipped:
    file = f"images/{picture.name}"
    origin = np.array(H36M_FROM_MPII[settings.mpii_map])
    joints = np.where(origin[:, None] >= 0, person.joints[origin], 0.0)
    supervised = joints[:, 2]
    fault = outside(joints[:, :2], supervised, pixels) if supervised.any() else "none of its joints is annotated"
    if fault:
        return Skipped(file, -1, f"person {person.index}: {fault}")
    if settings.box == "tight":
        box = fit_aspect(tight_box(joints[supervised > 0, :2]), 1.0)
    else:
        side = person.scale * REFERENCE_PX * BOX_MARGIN
        centre = person.centre + np.array([0.0, BOX_DOWN * person.scale])
        box = np.array([*(centre - side / 2), side, side])
    return Person(
        key=f"mpii_{plain_key(PurePosixPath(picture.name).stem)}_{person.index:02d}",
        names=Names("mpii", file, part=picture.part),
        picture=pixels,
        joints_px=joints[:, :2],
        joints_mm=np.zeros((len(H36M_JOINTS), 3)),
        supervised_px=supervised,
        supervised_mm=np.zeros(len(H36M_JOINTS)),
        box=box,
        intrinsics=np.zeros(4),
        distortion=np.zeros(5),
        head_size=person.head_size,
    )
