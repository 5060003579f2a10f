"""What a served model does with a request: pictures as base64 in, poses out, by the code of `pose predict`."""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np

from cluster.predict.boxes import BoxFinder
from cluster.predict.camera import Camera, camera_of
from cluster.predict.outputs import described, person
from cluster.predict.pictures import open_photo
from cluster.predict.poses import Pose, Predictor, Seen
from cluster.predict.settings import CameraSettings
from poselib.errors import InputError

MOST_ROWS: Final = 256
"""Pictures of one request at most."""
MOST_PIXELS: Final = 64_000_000
"""Of a picture; the same as `pose predict --max_pixels`."""
MOST_TEXT: Final = 128 * 2**20
"""Characters of base64 of one picture."""
BOX_SCALE: Final = 1.25


def answer_request(
    predictor: Predictor, rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The pose of each row, in their order.

    Args:
        predictor: the model.
        rows: `picture`, the base64 text of a file that Pillow reads, and, if it is not the whole picture, the person's
            `box`: x, y, width, height in px of the upright picture.
        options: those of `CameraSettings`, and `box_scale`; each may be left out.

    Returns:
        Entries as in `poses.json`, a person's and its picture's in one: joints in px and mm, spread, confidence, box,
        root depth, focal length, size.

    Raises:
        InputError: one line: which row, and what is wrong with it. Nothing is answered then.
    """
    if not 1 <= len(rows) <= MOST_ROWS:
        raise InputError(f"a request must hold 1 to {MOST_ROWS} rows, not {len(rows)}")
    assumed, box_scale = read_options(options)
    seen, sizes, origins = [], [], []
    for number, row in enumerate(rows):
        photo = open_photo(read_base64(row.get("picture"), number), f"row {number}: picture", MOST_PIXELS)
        finder = BoxFinder(box=read_box(row.get("box"), number), scale=box_scale)
        found = finder.find(photo.pixels, f"row {number}")
        if found.problems:
            raise InputError(found.problems[0])
        crops = predictor.cut(photo.pixels, found.boxes, found.scale)
        seen.append(Seen(found.boxes, crops, camera_of(photo.pixels, photo.focal_px, assumed)))
        sizes.append(photo.pixels.shape[1::-1])
        origins.append(found.origin if found.origin == "whole picture" else "request")
    answers = predictor.answer(np.concatenate([one.crops.pixels for one in seen]))
    people = predictor.poses(answers, seen, assumed)
    return [_entry(*parts) for parts in zip(people, origins, sizes, (one.camera for one in seen), strict=True)]


def _entry(people: list[Pose], origin: str, size: tuple[int, int], camera: Camera) -> dict[str, Any]:
    (pose,) = people
    picture = described("", None, size, camera, [])
    return person(pose, origin) | {key: picture[key] for key in ("width", "height", "focal_px", "focal_from")}


def read_options(options: Mapping[str, Any]) -> tuple[CameraSettings, float]:
    """What is assumed of camera and person, and the scale of boxes.

    Raises:
        InputError: a value out of its range.
    """
    names = [one.name for one in fields(CameraSettings)]
    try:
        assumed = CameraSettings(**{name: float(options[name]) for name in names if options.get(name) is not None})
        box_scale = float(options.get("box_scale", BOX_SCALE))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"params: {error}") from error
    if not 0.2 <= box_scale <= 5:
        raise InputError(f"params: box_scale must lie in 0.2..5, not {box_scale}")
    return assumed, box_scale


def read_base64(text: Any, row: int) -> bytes:
    """The file that a base64 text stands for; `data:image/...;base64,` before it and line ends in it do no harm.

    Raises:
        InputError: it is none.
    """
    where = f"row {row}: picture"
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where} must be the base64 text of a picture file, and is empty or no text")
    if len(text) > MOST_TEXT:
        raise InputError(f"{where} has {len(text)} characters, more than the {MOST_TEXT} allowed; send a smaller file")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where} is no base64 ({error}); encode the file's bytes, such as by `base64 -w0`") from error


def read_box(value: Any, row: int) -> np.ndarray | None:
    """A box, `1 4`; None where the row has none.

    Raises:
        InputError: it is no box.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        return np.asarray(value, np.float64).reshape(1, 4)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"row {row}: box must be [x, y, width, height] in px") from error
