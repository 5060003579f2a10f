"""Known faults of the published Human3.6M, and what the settings `faulty_videos` and `shifted_poses` do about them.

The recordings are named as in the release; its `mapping` calls them the sub-actions given here. The studio's data is
synthetic and has none of these faults.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from shards.settings import BuildSettings
from shards.source import is_synthetic

FAULTY_VIDEOS: Final = {("S11", "Directions", 2): "54138969"}
"""Recordings whose video of this camera shows something else than the poses."""

SHIFTED_POSES: Final = {
    ("S9", "Greeting", 2): "Greeting",
    ("S9", "SittingDown", 2): "SittingDown 1",
    ("S9", "Waiting", 1): "Waiting 1",
}
"""Recordings whose poses lie `SHIFT_MM` off, by their names in the release."""

RELEASE_NAMES: Final = {("S11", "Directions"): ("S11", "Directions", 2)} | {
    (key[0], name): key for key, name in SHIFTED_POSES.items()
}
"""The same recordings by subject and file name, for the layout that has these."""

SHIFT_MM: Final = np.array([200.0, 0.0, 0.0])
"""World frame. Source: the code of Sárándi et al., MeTRAbs, which takes 200 mm off x for these three."""


@dataclass(frozen=True)
class Recording:
    """What identifies a recording whatever its layout."""

    subject: str
    action: str
    subaction: int

    @property
    def key(self) -> tuple[str, str, int]:
        """As the tables of faults have it."""
        return self.subject, self.action, self.subaction


def left_out(settings: BuildSettings, take: Recording, camera: str, can_correct: bool = True) -> bool:
    """Whether a video of a recording is not read.

    `can_correct`: whether the layout knows the world frame; without it a shifted recording that should be corrected
    is left out.
    """
    if is_synthetic(settings.raw):
        return False
    if settings.faulty_videos == "skip" and FAULTY_VIDEOS.get(take.key) == camera:
        return True
    return take.key in SHIFTED_POSES and _shifted_mode(settings, can_correct) == "skip"


def corrected(settings: BuildSettings, take: Recording, world_mm: np.ndarray) -> np.ndarray:
    """Poses `f 17 3` mm, world frame, moved back if they are known to be shifted and this is to be corrected."""
    if take.key in SHIFTED_POSES and settings.shifted_poses == "correct" and not is_synthetic(settings.raw):
        return world_mm - SHIFT_MM
    return world_mm


def fault_lines(
    settings: BuildSettings, holds: Callable[[Recording], bool], can_correct: bool = True
) -> tuple[str, ...]:
    """One line for each known fault that concerns the set; `holds` says whether the raw data has a recording."""
    if is_synthetic(settings.raw):
        return ()

    def concerns(key: tuple[str, str, int]) -> bool:
        return (not settings.subjects or key[0] in settings.subjects) and holds(Recording(*key))

    done = {"skip": "skipped", "keep": "kept as it is"}[settings.faulty_videos]
    lines = [
        f"{subject} {action}, camera {camera}: video and poses disagree; {done} "
        f"(faulty_videos: {settings.faulty_videos})"
        for (subject, action, subaction), camera in FAULTY_VIDEOS.items()
        if concerns((subject, action, subaction))
    ]
    words = {"correct": "moved back", "skip": "skipped", "keep": "kept as they are"}
    lines += [
        f"{key[0]} {name}: poses are shifted by 200 mm along world X; {words[_shifted_mode(settings, can_correct)]} "
        f"(shifted_poses: {settings.shifted_poses})"
        for key, name in SHIFTED_POSES.items()
        if concerns(key)
    ]
    return tuple(lines)


def _shifted_mode(settings: BuildSettings, can_correct: bool) -> str:
    if settings.shifted_poses == "correct" and not can_correct:
        return "skip"
    return settings.shifted_poses
