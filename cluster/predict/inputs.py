"""Words of a command line to pictures and videos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cluster.predict.video import SUFFIXES as VIDEOS
from cluster.predict.video import count_frames, read_frames
from poselib.errors import InputError

PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif", ".ppm"})
STDIN: Final = "-"


@dataclass(frozen=True)
class Input:
    """A picture or a video.

    Attributes:
        name: as given, or below the folder that was given.
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


def find_inputs(words: Sequence[str], out: Path) -> tuple[list[Input], list[str]]:
    """Everything that the words name, in order, and a line for each word that names nothing.

    Args:
        words: files, folders (with those inside them, but for hidden ones), or `-`.
        out: what lies in this folder is left out of other folders: it was made by an earlier prediction.
    """
    found: list[Input] = []
    problems: list[str] = []
    for word in words:
        path = Path(word)
        if word == STDIN:
            found.append(Input(STDIN, None))
        elif "://" in word:
            problems.append(f"{word}: is a URL; download it, and give the file")
        elif path.is_dir():
            inside = list(_inside(path, out.resolve()))
            found += inside
            if not inside:
                problems.append(f"{word}: the folder holds no pictures or videos")
        elif path.exists():
            found.append(Input(word, path))
        else:
            problems.append(f"{word}: does not exist")
    return found, problems


def _inside(folder: Path, out: Path) -> Iterator[Input]:
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if any(part.startswith(".") for part in inner.parts) or path.suffix.lower() not in PICTURES | VIDEOS:
            continue
        if path.is_file() and out not in path.resolve().parents:
            yield Input(str(inner), path)


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
