"""Still pictures, found and read strictly."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from poselib.errors import InputError

LARGEST_PX: Final = 40_000_000
"""Far above any picture of these sets; a small file may claim more than memory holds."""


def load_picture(path: Path) -> np.ndarray:
    """A picture as uint8 `h w 3`, RGB, in the orientation its pixels are stored in.

    Pillow, since OpenCV turns pictures by their EXIF tag and fills truncated ones with grey.

    Raises:
        OSError: missing or truncated.
        ValueError: no picture, damaged, or far too large.
    """
    with _opened(path) as picture:
        return np.asarray(picture.convert("RGB"))


def load_labels(path: Path) -> np.ndarray:
    """A picture of labels as stored, palette indices and all: uint8 `h w`.

    Raises:
        OSError: missing or truncated.
        ValueError: no picture, damaged, far too large, or in colour, which holds no labels.
    """
    with _opened(path) as picture:
        if picture.mode not in ("P", "L"):
            raise ValueError(f"a picture of mode {picture.mode} holds no labels; a palette picture does")
        return np.asarray(picture)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its head; errors as in `load_picture`."""
    with _opened(path) as picture:
        return picture.size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture whose size is checked before a pixel of it is decoded; messages name no folder of this machine."""
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > LARGEST_PX:
                raise ValueError(f"a picture of {picture.width}x{picture.height} px is none of this set")
            yield picture
    except UnidentifiedImageError as error:
        raise ValueError("no picture, or its head is damaged") from error
    except (OSError, ValueError):
        raise
    except Exception as error:  # Pillow lets whatever it meets in damaged bytes escape
        raise ValueError(f"the picture is damaged ({type(error).__name__}: {error})") from error


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
    if path.is_absolute() or ".." in path.parts or not str(name).isprintable():
        raise InputError(f"{where}: {name!r} is no picture's path below the raw folder")
    return str(path)


def plain_name(name: Any, where: Path) -> str:
    """A subject, camera or action as an annotation file names it; it becomes part of paths and keys.

    Raises:
        InputError: anything but letters, digits, `_` and `-`.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"{where}: {name!r} is no name of a subject, camera or action")
    return name
