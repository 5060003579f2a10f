"""Still pictures, found and read strictly."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from poselib.errors import InputError


def load_picture(path: Path) -> np.ndarray:
    """A picture as uint8 `h w 3`, RGB, in the orientation its pixels are stored in.

    Pillow, since OpenCV turns pictures by their EXIF tag and fills truncated ones with grey.

    Raises:
        OSError: missing, truncated or no picture.
    """
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def load_labels(path: Path) -> np.ndarray:
    """A picture of labels as stored, palette indices and all: uint8 `h w`.

    Raises:
        OSError: missing, truncated or no picture.
        ValueError: a colour picture, which holds no labels.
    """
    with Image.open(path) as picture:
        if picture.mode not in ("P", "L"):
            raise ValueError(f"a picture of mode {picture.mode} holds no labels; a palette picture does")
        return np.asarray(picture)


def lacking(raw: Path, files: Iterable[str]) -> set[str]:
    """Those of the files below `raw` that are not there; each folder is listed once, which is fast on any disk."""
    files = set(files)
    listed = {parent: _names(raw / parent) for parent in {PurePosixPath(file).parent for file in files}}
    return {file for file in files if PurePosixPath(file).name not in listed[PurePosixPath(file).parent]}


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()


def inner_path(name: Any, where: Path) -> str:
    """A picture's path as an annotation file gives it.

    Raises:
        InputError: not a path, or one that leads out of the folder.
    """
    path = PurePosixPath(name) if isinstance(name, str) and name else PurePosixPath("/")
    if path.is_absolute() or ".." in path.parts:
        raise InputError(f"{where}: {name!r} is no picture's path below the raw folder")
    return str(path)
