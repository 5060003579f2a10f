"""Recordings in pictures as columns, and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shards.columns import decode_texts, encode_texts
from shards.readers.h36m_person import Lens
from shards.readers.h36m_stills import StillTake, View
from shards.records import Skipped
from shards.settings import BuildSettings
from shards.source import Index


def stills_index(*patterns: str) -> Index:
    """The index of a layout whose annotation files match these patterns below the raw folder."""
    return Index(_files(patterns), pack, unpack)


def pack(take: StillTake) -> tuple[Any, dict[str, np.ndarray]]:
    """A recording as JSON values and columns; rows are the pictures, camera by camera."""
    views = [
        [v.camera, v.lens.intrinsics.tolist(), v.lens.distortion.tolist(), v.note, len(v.frames)] for v in take.views
    ]
    lost = [[skip.file, skip.frame, skip.reason, skip.samples] for skip in take.lost]
    plain = {"recording": [take.subject, take.action, take.subaction], "views": views, "lost": lost}
    if not take.views:
        return plain, {}
    columns = {
        "frames": np.concatenate([np.array(view.frames, np.int32) for view in take.views]),
        "files": np.concatenate([encode_texts(view.files) for view in take.views]),
        "joints_mm": np.concatenate([view.joints_mm for view in take.views]),
    }
    known = [view.supervised for view in take.views if view.supervised is not None]
    if known:  # a layout says it of all its views or of none
        columns["supervised"] = np.concatenate(known).astype(np.int8)
    return plain, columns


def unpack(plain: Any, columns: dict[str, np.ndarray]) -> StillTake:
    """The recording that `pack` took."""
    views, start = [], 0
    for camera, intrinsics, distortion, note, count in plain["views"]:
        rows = slice(start, start + count)
        known = columns["supervised"][rows].astype(float) if "supervised" in columns else None
        views.append(
            View(
                camera,
                Lens(np.array(intrinsics), np.array(distortion)),
                tuple(columns["frames"][rows].tolist()),
                decode_texts(columns["files"][rows]),
                columns["joints_mm"][rows],
                note,
                known,
            )
        )
        start += count
    subject, action, subaction = plain["recording"]
    return StillTake(subject, action, subaction, tuple(views), tuple(Skipped(*skip) for skip in plain["lost"]))


def _files(patterns: tuple[str, ...]) -> Callable[[BuildSettings], list[Path]]:
    return lambda settings: sorted({path for pattern in patterns for path in settings.raw.glob(pattern)})
