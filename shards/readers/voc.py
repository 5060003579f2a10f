"""VOC2012 -> the occluder bank, by the published recipe.

Source: Sarandi et al., "How Robust is 3D Human Pose Estimation to Occlusion?", 2018, and its code.
"""

import errno
import math
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from poselib.errors import InputError
from shards.occluders import Occluder
from shards.readers.pictures import lacking, load_labels, load_picture
from shards.records import Skipped
from shards.sample import Names
from shards.settings import BuildSettings
from shards.source import Part, Reader, Survey, plain_key

PICTURES_PER_PART: Final = 500
SMALLEST_MASK_PX: Final = 500
ELLIPSE_PX: Final = 8
BORDER_ALPHA: Final = 192
STORED_SCALE: Final = 0.5


def detect(raw: Path) -> bool:
    """Whether `raw` holds this layout, itself or as `VOCdevkit/VOC2012`."""
    return _root(raw) is not None


def parts(settings: BuildSettings) -> list[Part]:
    """Runs of 500 pictures that have a segmentation, by name.

    Raises:
        InputError: there is none.
    """
    root = _root(settings.raw)
    names = sorted(path.stem for path in (root / "SegmentationObject").glob("*.png")) if root else []
    if not names:
        raise InputError(f"{settings.raw} holds no SegmentationObject/*.png")
    starts = range(0, len(names), PICTURES_PER_PART)
    return [
        Part(f"voc_{index:04d}", tuple(names[start : start + PICTURES_PER_PART])) for index, start in enumerate(starts)
    ]


def read(settings: BuildSettings, part: Part) -> Iterator[Occluder | Skipped]:
    """The objects of a run of pictures."""
    root = _root(settings.raw) or settings.raw
    for name in part.content:
        file = "Annotations/" + name + ".xml"
        try:
            boxes = object_boxes(root / file)
            if not boxes:
                continue
            file = f"SegmentationObject/{name}.png"
            labels = load_labels(root / file)
            file = f"JPEGImages/{name}.jpg"
            picture = load_picture(root / file)
            if picture.shape[:2] != labels.shape:
                raise ValueError(f"the picture is {picture.shape[1::-1]} px, its segmentation {labels.shape[::-1]}")
            _check_boxes(boxes, labels)
        except (OSError, ValueError, SyntaxError) as error:  # XML's ParseError is a SyntaxError
            yield Skipped(file, -1, getattr(error, "strerror", None) or str(error))
            continue
        for index, box in boxes.items():
            cut = cut_out(picture, labels == index + 1, box)
            if cut is not None:
                names = Names("voc", f"JPEGImages/{name}.jpg", frame=index)
                yield Occluder(f"voc_{plain_key(name)}_{index:02d}", names, cut)


def object_boxes(path: Path) -> dict[int, tuple[int, int, int, int]]:
    """The boxes (xmin, ymin, xmax, ymax) of a picture's usable objects, by their place in the annotation.

    Raises:
        OSError: the file is missing.
        ValueError: a field is missing or no number.
        SyntaxError: not XML.
    """
    boxes = {}
    for index, item in enumerate(ET.parse(path).getroot().findall("object")):  # noqa: S314 - expat refuses bombs
        is_person = item.findtext("name") == "person"
        if is_person or item.findtext("difficult", "0") != "0" or item.findtext("truncated", "0") != "0":
            continue
        edges = [item.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
        if None in edges:
            raise ValueError(f"object {index} has no complete bndbox")
        numbers = [float(edge or "") for edge in edges]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"object {index} has a bndbox that is not finite")
        left, top, right, bottom = map(int, numbers)
        boxes[index] = (left, top, right, bottom)
    return boxes


def _check_boxes(boxes: dict[int, tuple[int, int, int, int]], labels: np.ndarray) -> None:
    """Refuse boxes out of the picture, and a segmentation `h w` that shows none of the objects: another picture's."""
    height, width = labels.shape
    for index, (left, top, right, bottom) in boxes.items():
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(
                f"object {index} has the bndbox {left} {top} {right} {bottom} in a {width}x{height} picture"
            )
    if not any((labels[top:bottom, left:right] == i + 1).any() for i, (left, top, right, bottom) in boxes.items()):
        raise ValueError("none of its objects is in the segmentation where their bndbox says")


def cut_out(picture: np.ndarray, mask: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray | None:
    """One object as an occluder, uint8 `h w 4` RGBA at half size; None where its mask is under 500 px.

    Args:
        picture: uint8 `h w 3`, RGB.
        mask: bool `h w`, where the object is.
        box: xmin, ymin, xmax, ymax in px.
    """
    left, top, right, bottom = box
    alpha = mask[top:bottom, left:right].astype(np.uint8) * 255
    if np.count_nonzero(alpha) < SMALLEST_MASK_PX:
        return None
    core = cv2.erode(alpha, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (ELLIPSE_PX, ELLIPSE_PX)))
    alpha[core < alpha] = BORDER_ALPHA
    cut = np.dstack([picture[top:bottom, left:right], alpha])
    size = (max(1, round(cut.shape[1] * STORED_SCALE)), max(1, round(cut.shape[0] * STORED_SCALE)))
    return cv2.resize(cut, size, interpolation=cv2.INTER_AREA)


def faults(settings: BuildSettings) -> tuple[str, ...]:
    """VOC2012 has no known faults."""
    return ()


def split(settings: BuildSettings) -> str:
    """All objects are of one part."""
    return ""


def survey(settings: BuildSettings, part: Part) -> Survey:
    """Pictures with a segmentation; how many objects they give is known when they are read."""
    root = _root(settings.raw) or settings.raw
    files = [form.format(name) for name in part.content for form in ("Annotations/{}.xml", "JPEGImages/{}.jpg")]
    damage = tuple(Skipped(file, -1, os.strerror(errno.ENOENT)) for file in sorted(lacking(root, files)))
    return Survey({("pictures", "", ""): len(part.content)}, (), damage)


READER: Final = Reader(
    "voc", "occluders", "JPEGImages/, Annotations/ and SegmentationObject/", detect, parts, read, faults, split, survey
)


def _root(raw: Path) -> Path | None:
    for root in (raw, raw / "VOC2012", raw / "VOCdevkit" / "VOC2012"):
        if all((root / name).is_dir() for name in ("JPEGImages", "Annotations", "SegmentationObject")):
            return root
    return None
