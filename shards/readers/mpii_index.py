"""Pictures of MPII with their people as columns, and back."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from poselib.skeleton import MPII_JOINTS
from shards.columns import decode_texts, encode_texts
from shards.readers.mpii import Annotation, Picture
from shards.settings import BuildSettings
from shards.source import Index

FILES: Final = ("mpii_human_pose*.mat", "mpii_human_pose*/mpii_human_pose*.mat", "annot/*.json", "valid.json")


def pack(pictures: tuple[Picture, ...]) -> tuple[Any, dict[str, np.ndarray]]:
    """A run of pictures as JSON values and columns: one row per picture, and one per person."""
    people = [person for picture in pictures for person in picture.people]
    plain = {"faults": {str(number): p.faults for number, p in enumerate(pictures) if p.faults}}
    columns = {
        "name": encode_texts([picture.name for picture in pictures]),
        "part": encode_texts([picture.part for picture in pictures]),
        "people": np.array([len(picture.people) for picture in pictures], np.int32),
    }
    if people:
        columns |= {
            "index": np.array([person.index for person in people], np.int32),
            "joints": np.stack([person.joints for person in people]),
            "centre": np.stack([person.centre for person in people]),
            "scale": np.array([person.scale for person in people]),
            "head_size": np.array([person.head_size for person in people]),
        }
    return plain, columns


def unpack(plain: Any, columns: dict[str, np.ndarray]) -> tuple[Picture, ...]:
    """The pictures that `pack` took."""
    ends = np.cumsum(columns["people"]).tolist()
    pictures = []
    names, parts = decode_texts(columns["name"]), decode_texts(columns["part"])
    for number, (name, part, start, stop) in enumerate(zip(names, parts, [0, *ends[:-1]], ends, strict=True)):
        people = tuple(
            Annotation(
                int(columns["index"][row]),
                columns["joints"][row].reshape(len(MPII_JOINTS), 3),
                columns["centre"][row],
                float(columns["scale"][row]),
                float(columns["head_size"][row]),
            )
            for row in range(start, stop)
        )
        pictures.append(Picture(name, part, people, tuple(plain["faults"].get(str(number), ()))))
    return tuple(pictures)


def _files(settings: BuildSettings) -> list[Path]:
    found = {path for pattern in FILES for path in settings.raw.glob(pattern)}
    return sorted(found) + ([settings.mpii_val_list] if settings.mpii_val_list else [])


MPII_INDEX: Final = Index(_files, pack, unpack)
