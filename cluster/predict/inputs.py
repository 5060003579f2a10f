"""Words of a command line to pictures and videos."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cluster.predict.video import SUFFIXES as VIDEOS
from cluster.predict.video import count_frames, read_frames
from poselib.errors import InputError

PICTURES: Final = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".ppm"}
)
UNREAD: Final = frozenset({".heic", ".heif"})
"""Pictures that phones take, and that Pillow does not read."""
STDIN: Final = "-"


@dataclass(frozen=True)
class Input:
    """A picture or a video.

    Attributes:
        name: as given; of a folder's, its path below that, with the folder before it where several words are given.
        path: None for the standard input.
    """

    name: str
    path: Path | None

    @property
    def is_video(self) -> bool:
        """By its suffix."""
        return self.path is not None and self.path.suffix.lower() in VIDEOS


@dataclass(frozen=True, eq=False)
class Item:
    """One picture or frame to predict, or what was wrong with it.

    Attributes:
        source: where it comes from.
        frame: its number in a video.
        pixels: of a frame, uint8 `h w 3`; pictures are read later.
        problem: one line; nothing else is there then.
    """

    source: Input
    frame: int | None = None
    pixels: np.ndarray | None = None
    problem: str = ""


def find_inputs(words: Sequence[str], made: Path) -> tuple[list[Input], list[str]]:
    """Everything that the words name, in order, and a line for each word or file that cannot be used.

    Args:
        words: files, folders (with those inside them, but for hidden ones), or `-`.
        made: the folder that overlays are written to; what lies there is no input: it would be overwritten.
    """
    found: list[Input] = []
    problems: list[str] = []
    for word in words:
        if problem := _wrong_with(word, made.resolve()):
            problems.append(problem)
        elif word == STDIN or not Path(word).is_dir():
            found.append(Input(word, Path(word) if word != STDIN else None))
        else:
            inside = _inside(Path(word), made.resolve(), len(words) > 1)
            found += [one for one in inside if not _is_unread(one)]
            problems += [_save_otherwise(one.name) for one in inside if _is_unread(one)]
            problems += [] if inside else [f"{word}: the folder holds no pictures or videos"]
    return found, problems


def _wrong_with(word: str, made: Path) -> str:
    """Why a word names no input; empty where it names some."""
    path = Path(word)
    if word == STDIN:
        return f"{word}: nothing is piped in; give a picture by `< photo.jpg`" if _is_terminal() else ""
    if "://" in word:
        return f"{word}: is a URL; download it, and give the file"
    if not path.exists():
        return f"{word}: does not exist"
    if made in (path.resolve(), *path.resolve().parents):
        return f"{word}: lies where overlays are written, and would be overwritten; give another --out"
    return _save_otherwise(word) if path.suffix.lower() in UNREAD else ""


def _inside(folder: Path, made: Path, several: bool) -> list[Input]:
    """The pictures and videos in a folder, those too that cannot be read."""
    found = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inner.parts)
        if hidden or path.suffix.lower() not in PICTURES | VIDEOS | UNREAD:
            continue
        if path.is_file() and made not in path.resolve().parents:
            found.append(Input(str(path if several else inner), path))
    return found


def _is_unread(one: Input) -> bool:
    return one.path is not None and one.path.suffix.lower() in UNREAD


def _save_otherwise(name: str) -> str:
    return f"{name}: is HEIC, which is not read; save it as JPEG or PNG"


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def count_items(inputs: Sequence[Input], every: int) -> int:
    """How many pictures and frames there will be, as far as the videos say."""
    return sum(count_frames(one.path, every) if one.is_video and one.path else 1 for one in inputs)


def read_items(inputs: Sequence[Input], every: int, max_pixels: int) -> Iterator[Item]:
    """Pictures, unread, and the frames of videos, in order."""
    for one in inputs:
        if not one.is_video or one.path is None:
            yield Item(one)
            continue
        try:
            for number, pixels in read_frames(one.path, one.name, every, max_pixels):
                yield Item(one, number, pixels)
        except InputError as error:
            yield Item(one, problem=str(error))
