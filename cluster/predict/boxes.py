"""Which part of a picture is a person: boxes from a file, from an option, from a detector, or the whole picture."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.predict.crops import squared
from poselib.errors import InputError
from shards.crop import SMALLEST_BOX_PX

Boxes = np.ndarray
"""`n 4`: x y w h in px of the upright picture, x y the upper left corner."""
Detector = Callable[[np.ndarray], Boxes]
"""People in a picture, uint8 `h w 3` RGB."""


@dataclass(frozen=True)
class Found:
    """The people of one picture.

    Attributes:
        boxes: `n 4`.
        origin: where they come from: `option`, `file`, `detector` or `whole picture`.
        problems: a line for each box that was left out.
        scale: how much larger than a box its crop is.
    """

    boxes: Boxes
    origin: str
    problems: tuple[str, ...] = ()
    scale: float = 1.0


@dataclass(frozen=True)
class BoxFinder:
    """Says where people are.

    Attributes:
        box: one box for every picture.
        table: boxes by picture; `clip.mp4#12` is frame 12 of a video, before its other boxes.
        detector: asked where neither says anything.
        scale: how much larger than a box its crop is; the whole picture is taken as it is.
    """

    box: Boxes | None = None
    table: Mapping[str, Boxes] | None = None
    detector: Detector | None = None
    scale: float = 1.0

    def find(self, picture: np.ndarray, name: str, frame: int | None = None) -> Found:
        """The people of a picture; boxes that cannot be used are named and left out.

        Args:
            picture: uint8 `h w 3`.
            name: as given, or below its folder; in a file its last parts will do.
            frame: of a video.
        """
        if self.box is not None:
            return _usable(self.box, "option", picture, name, self.scale)
        if self.table is not None:
            return self._from_table(self.table, picture, name, frame)
        if self.detector is not None:
            return _usable(self.detector(picture), "detector", picture, name, self.scale)
        height, width = picture.shape[:2]
        return _usable(np.array([[0.0, 0.0, width, height]]), "whole picture", picture, name, 1.0)

    def unused(self, names: Iterable[str]) -> list[str]:
        """Names of the table that none of these inputs has."""
        known = {tail for name in names for tail in _tails(name)}
        return [key for key in self.table or () if key not in known and key.rpartition("#")[0] not in known]

    def _from_table(self, table: Mapping[str, Boxes], picture: np.ndarray, name: str, frame: int | None) -> Found:
        names = _tails(name)
        keys = [f"{one}#{frame}" for one in names if frame is not None] + names
        for key in keys:
            if key in table:
                return _usable(table[key], "file", picture, name, self.scale)
        if frame is not None and any(key.startswith(f"{one}#") for key in table for one in names):
            return Found(np.empty((0, 4)), "file")  # a video's boxes by frame: nobody is in this one
        return Found(np.empty((0, 4)), "file", (f"{name}: the file of boxes has none for it",))


def _tails(name: str) -> list[str]:
    """What a file of boxes may call an input: its name, or that without its first folders, the longest first."""
    parts = Path(name).parts
    return list(dict.fromkeys([name, *(str(Path(*parts[start:])) for start in range(len(parts)))]))


def _usable(boxes: Boxes, origin: str, picture: np.ndarray, name: str, scale: float) -> Found:
    """Boxes with a problem's line for each that is no box or shows nothing of the picture."""
    height, width = picture.shape[:2]
    kept, problems = [], []
    for box in np.asarray(boxes, np.float64).reshape(-1, 4):
        text = f"{name}: box {', '.join(f'{value:g}' for value in box)}"
        if not np.isfinite(box).all() or box[2:].min() < SMALLEST_BOX_PX:
            problems.append(f"{text} is too small; x, y, width, height in px, at least {SMALLEST_BOX_PX:g} wide")
        elif _is_outside(box, width, height):
            problems.append(f"{text} lies outside the picture of {width} x {height} px")
        elif box[2:].max() > 10 * max(width, height):
            problems.append(f"{text} is more than ten times as large as the picture of {width} x {height} px")
        elif _is_outside(squared(box[None], scale)[0], width, height):
            problems.append(f"{text}, at box_scale {scale:g}, lies outside the picture of {width} x {height} px")
        else:
            kept.append(box)
    return Found(np.array(kept).reshape(-1, 4), origin, tuple(problems), scale)


def _is_outside(box: np.ndarray, width: int, height: int) -> bool:
    x, y, w, h = box
    return bool(x >= width or y >= height or x + w <= 0 or y + h <= 0)


def read_boxes(path: Path) -> dict[str, Boxes]:
    """A file of boxes: JSON `{"a.jpg": [[x, y, w, h], ...]}`, or CSV with the columns name, x, y, w, h and, for
    videos, frame.

    Raises:
        InputError: missing, or with an entry that is no box; the message names it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a file of boxes: {getattr(error, 'strerror', error)}") from error
    if path.suffix.lower() == ".csv":
        return _from_csv(path, text)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: neither JSON nor a .csv: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f'{path}: must be {{"picture.jpg": [[x, y, width, height], ...], ...}}')
    return {name: _to_boxes(boxes, f"{path}: {name}") for name, boxes in content.items()}


def _from_csv(path: Path, text: str) -> dict[str, Boxes]:
    rows = csv.DictReader(io.StringIO(text))
    lacking = {"name", "x", "y", "w", "h"} - set(rows.fieldnames or ())
    if lacking:
        raise InputError(f"{path}: the first line must name the columns name,x,y,w,h; lacking: {', '.join(lacking)}")
    found: dict[str, list[list[float]]] = {}
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        try:
            box = [float(row[column]) for column in ("x", "y", "w", "h")]
            frame = f"#{int(row['frame'])}" if row.get("frame") else ""
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: x, y, w, h must be numbers, frame a whole one or empty") from error
        found.setdefault(f"{row['name']}{frame}", []).append(box)
    return {name: _to_boxes(boxes, f"{path}: {name}") for name, boxes in found.items()}


def _to_boxes(value: Any, where: str) -> Boxes:
    """One box or a list of them."""
    rows = [value] if isinstance(value, list) and value and not isinstance(value[0], list) else value
    if not isinstance(rows, list) or not all(_is_box(row) for row in rows):
        raise InputError(f"{where}: must be a list of boxes [x, y, width, height] in px")
    return np.array(rows, np.float64).reshape(-1, 4)


def _is_box(row: Any) -> bool:
    if not isinstance(row, list) or len(row) != 4:
        return False
    return all(isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value) for value in row)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
