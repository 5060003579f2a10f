"""What a reader hands over: people in their original frames, in parts that workers take one by one.

A part becomes one shard. Parts are cut by the raw data alone, so a build gives the same bytes with any number of
workers, and a part that is finished stays finished.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from shards.occluders import Occluder
from shards.records import Skipped
from shards.sample import Names
from shards.settings import BuildSettings

Kind = Literal["people", "occluders"]

LONGEST_KEY: Final = 90
"""A tar's plain header has room for 100 with the ending."""


@dataclass(frozen=True, eq=False)
class Person:
    """One person in an original frame, before any cropping.

    Attributes:
        key: unique in its part, plain (see `plain_key`), up to `LONGEST_KEY` characters.
        names: what the sample is called.
        picture: uint8 `h w 3`, RGB, the whole frame as filmed.
        joints_px: `17 2` px of the frame under the set's lens; of the undistorted frame where it is `undistorted`.
        joints_mm: `17 3` mm, camera frame; zeros without 3D truth.
        supervised_px: `17`, 1 where joints_px is known.
        supervised_mm: `17`, 1 where joints_mm is known.
        box: nominal person box, `4`: x y w h in px of the frame.
        intrinsics: `4`, fx fy cx cy in px of the frame; zeros without a camera.
        distortion: `5`, k1 k2 k3 p1 p2 of the lens that filmed; zeros without a camera.
        head_size: PCKh's normaliser in px of the frame; 0 where unknown.
    """

    key: str
    names: Names
    picture: np.ndarray
    joints_px: np.ndarray
    joints_mm: np.ndarray
    supervised_px: np.ndarray
    supervised_mm: np.ndarray
    box: np.ndarray
    intrinsics: np.ndarray
    distortion: np.ndarray
    head_size: float = 0.0


@dataclass(frozen=True)
class Part:
    """A piece of the raw data that becomes one shard.

    Attributes:
        name: the shard's file name without its ending.
        content: what the reader needs to read it: plain, picklable, small.
    """

    name: str
    content: Any


@dataclass(frozen=True)
class Survey:
    """What a part would give, told from its annotations; no picture is decoded.

    Attributes:
        counts: samples by subject (or part of the set), action and camera; empty names where there are none.
        notes: how each of its cameras was read.
        damage: what is known to be missing or wrong already.
    """

    counts: dict[tuple[str, str, str], int]
    notes: tuple[str, ...] = ()
    damage: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Index:
    """How the parts of a layout whose annotations are a few large files are kept as columns (see `shards.columns`).

    Attributes:
        files: the annotation files, in order; when one changes, the index is made anew.
        pack: a part's content as JSON values and columns.
        unpack: the content again.
    """

    files: Callable[[BuildSettings], list[Path]]
    pack: Callable[[Any], tuple[Any, dict[str, np.ndarray]]]
    unpack: Callable[[Any, dict[str, np.ndarray]], Any]


@dataclass(frozen=True)
class Reader:
    """How one raw layout is recognised, cut into parts and read.

    Attributes:
        source: name of the data set, as manifests have it; several layouts may hold the same one.
        kind: what its samples are.
        looks_for: the files that `detect` wants to see, for messages.
        detect: whether a folder holds this layout.
        parts: all parts in their final order; raises InputError where the layout is broken as a whole.
        read: the samples of one part in order, and in their places what had to be skipped.
        faults: one line for each known fault of the published data and how it was handled.
        split: how the parts of the set (`Names.part`) were told apart; empty where it has none.
        survey: what one part would give.
        index: how its parts are kept as columns; None where annotations are read part by part.
    """

    source: str
    kind: Kind
    looks_for: str
    detect: Callable[[Path], bool]
    parts: Callable[[BuildSettings], list[Part]]
    read: Callable[[BuildSettings, Part], Iterator[Person | Occluder | Skipped]]
    faults: Callable[[BuildSettings], tuple[str, ...]]
    split: Callable[[BuildSettings], str]
    survey: Callable[[BuildSettings, Part], Survey]
    index: Index | None = None


def plain_key(text: str) -> str:
    """A text as a part of a sample's key: WebDataset splits names at dots, DALI's index at spaces."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def is_synthetic(raw: Path) -> bool:
    """Whether a raw folder was written by the studio, which leaves `studio.json` in or above it."""
    return (raw / "studio.json").exists() or (raw.resolve().parent / "studio.json").exists()


def outside(joints_px: np.ndarray, supervised: np.ndarray, picture: np.ndarray) -> str:
    """Why a person does not belong to its picture, or an empty text.

    A hand that leaves the picture is normal; a person of whom most joints lie outside is a fault of the annotation.

    Args:
        joints_px: `j 2` px of the picture.
        supervised: `j`, joints with 0 are not looked at.
        picture: `h w 3`.
    """
    height, width = picture.shape[:2]
    known = joints_px[supervised > 0]
    inside = ((known >= 0) & (known <= (width, height))).all(axis=1)
    if 2 * inside.sum() >= len(known):
        return ""
    return f"{len(known) - inside.sum()} of {len(known)} joints lie outside the {width}x{height} picture"
