"""MPII Human Pose as prepared for HRNet: JSON lists beside pictures.

    annot/train.json, annot/valid.json    [{image, center 2, scale, joints 16x2, joints_vis 16}], 1-based px
    images/

One record is one person; a person of scale 1 is 200 px tall. The box moves down by 15 px per unit of scale and grows
by 1.25, as in the official layout's reader, which gives the same samples where both lie there. There is no head box, so
PCKh cannot be computed from this layout. Parts are those of the two lists, unless `mpii_val_list` names another.
"""

import json
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from poselib.errors import InputError
from poselib.skeleton import MPII_JOINTS
from shards.readers.mpii import ONE_BASED, PICTURES_PER_PART, Annotation, Picture, read, survey
from shards.readers.mpii_lists import ValidationList, describe_split, find_list, part_of
from shards.readers.pictures import inner_path
from shards.settings import BuildSettings
from shards.source import Part, Reader

LISTS: Final = {"train": "train.json", "val": "valid.json"}


def detect(raw: Path) -> bool:
    """Whether `raw` holds this layout."""
    return bool(_lists(raw)) and (raw / "images").is_dir()


def parts(settings: BuildSettings) -> list[Part]:
    """Runs of 400 pictures in the order of the lists.

    Raises:
        InputError: a list cannot be read, or both name the same picture, or there are no annotated people, or
            `mpii_val_list` does not fit them.
    """
    listed = _own_list(settings)
    pictures: list[Picture] = []
    for part, path in _lists(settings.raw).items():
        people: dict[str, list[Annotation]] = defaultdict(list)
        wrong: dict[str, list[str]] = defaultdict(list)
        for number, record in enumerate(_records(path)):
            name = inner_path(record.get("image") if isinstance(record, dict) else None, path)
            person = _person(record, len(people[name]) + len(wrong[name]))
            if isinstance(person, str):
                wrong[name].append(f"record {number} of {path.name}: {person}")
            else:
                people[name].append(person)
        both = sorted(people.keys() & {picture.name for picture in pictures})
        if both:
            raise InputError(f"{path} names {both[0]}, which {LISTS['train']} names too; a picture has one part")
        pictures += [
            Picture(name, part_of(name, listed) if listed else part, tuple(people[name]), tuple(wrong[name]))
            for name in people
        ]
    if listed:
        listed.check_known({PurePosixPath(picture.name).name for picture in pictures})
    if not any(picture.people for picture in pictures):
        raise InputError(f"{settings.raw / 'annot'} holds no annotated people")
    starts = range(0, len(pictures), PICTURES_PER_PART)
    return [
        Part(f"mpii_{index:04d}", tuple(pictures[start : start + PICTURES_PER_PART]))
        for index, start in enumerate(starts)
    ]


def faults(settings: BuildSettings) -> tuple[str, ...]:
    """MPII has no known faults beyond those that reading finds."""
    return ()


def split(settings: BuildSettings) -> str:
    """How training and validation pictures were told apart."""
    listed = _own_list(settings)
    if listed:
        return describe_split(listed)
    return f"training and validation: the pictures of {' and '.join(p.name for p in _lists(settings.raw).values())}"


READER: Final = Reader(
    "mpii", "people", "annot/train.json or valid.json beside images/", detect, parts, read, faults, split, survey
)


def _own_list(settings: BuildSettings) -> ValidationList | None:
    return find_list(settings) if settings.mpii_val_list is not None else None


def _lists(raw: Path) -> dict[str, Path]:
    return {part: raw / "annot" / name for part, name in LISTS.items() if (raw / "annot" / name).is_file()}


def _records(path: Path) -> list[Any]:
    try:
        records = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no JSON file, or cut short ({error})") from error
    if not isinstance(records, list):
        raise InputError(f"{path} must be a list of objects, one per person")
    return records


def _person(record: dict[str, Any], index: int) -> Annotation | str:
    """The person, or what is wrong with the record."""
    try:
        joints = np.asarray(record["joints"], float).reshape(len(MPII_JOINTS), 2)
        visible = np.asarray(record["joints_vis"], float).reshape(len(MPII_JOINTS)) > 0
        centre, scale = np.asarray(record["center"], float).reshape(2), float(record["scale"])
    except (KeyError, TypeError, ValueError) as error:
        return f"no joints 16 x 2, joints_vis 16, center and scale ({error!r})"
    if not (np.isfinite(joints[visible]).all() and np.isfinite(centre).all() and np.isfinite(scale) and scale > 0):
        return "a joint, center or scale is not a finite number, or scale is not above 0"
    known = np.concatenate([joints - ONE_BASED, np.ones((len(joints), 1))], axis=1)
    return Annotation(index, np.where(visible[:, None], known, 0.0), centre - ONE_BASED, scale, 0.0)
