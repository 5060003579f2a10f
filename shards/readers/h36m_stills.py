"""What the layouts of Human3.6M with single pictures share: a part is one recording with all its cameras.

Annotations are read once, by the process that cuts the parts; a part carries the wanted poses of its recording only.
"""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from poselib.camera import world_to_camera
from poselib.errors import InputError
from shards.readers.checks import FORMULAS, camera_position, choose_convention, skeleton_fault
from shards.readers.h36m_faults import Recording
from shards.readers.h36m_metadata import ACTIONS, CAMERAS
from shards.readers.h36m_person import ALL_JOINTS, Lens, is_wanted, make_person, pose_fault
from shards.readers.pictures import lacking, load_picture
from shards.records import Skipped
from shards.settings import BuildSettings
from shards.source import Part, Person, Survey
from shards.table import natural_order

MISSING: Final = os.strerror(errno.ENOENT)
"""As reading a picture that is not there puts it."""
PICTURE_NAME: Final = re.compile(r"s_(\d\d)_act_(\d\d)_subact_(\d\d)_ca_(\d\d)_(\d{6})\.\w+$")


@dataclass(frozen=True, eq=False)
class View:
    """The wanted frames of a recording as one camera saw them.

    Attributes:
        camera: its name.
        lens: its intrinsics and distortion.
        frames: `n`, counted from 0.
        files: `n` pictures below the raw folder.
        joints_mm: `n 17 3` mm, camera frame.
        note: how the camera was read.
        supervised: `n 17`, 0 for joints that the annotation does not vouch for; None for all.
    """

    camera: str
    lens: Lens
    frames: tuple[int, ...]
    files: tuple[str, ...]
    joints_mm: np.ndarray
    note: str
    supervised: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class StillTake(Recording):
    """A recording in pictures, and the damage met when its annotations were read."""

    views: tuple[View, ...]
    lost: tuple[Skipped, ...] = ()


@dataclass(frozen=True, eq=False)
class WorldCamera:
    """A camera that stands in the world: rotation `3 3`, position `3` mm, its lens, and how that was found out."""

    rotation: np.ndarray
    position_mm: np.ndarray
    lens: Lens
    note: str

    def see(self, world_mm: np.ndarray) -> np.ndarray:
        """Camera frame: `... 17 3` mm."""
        return world_to_camera(world_mm, self.rotation, self.position_mm)


def read_stills(settings: BuildSettings, part: Part) -> Iterator[Person | Skipped]:
    """The wanted pictures of a recording, camera by camera."""
    take: StillTake = part.content
    yield from take.lost
    for view in take.views:
        for frame, file, joints_mm, known in zip(
            view.frames, view.files, view.joints_mm, _supervised(view), strict=True
        ):
            if not is_wanted(frame, settings):
                continue
            try:
                picture = load_picture(settings.raw / file)
            except (OSError, ValueError) as error:
                yield Skipped(file, frame, getattr(error, "strerror", None) or str(error))
                continue
            yield make_person(settings, take, view.camera, view.lens, frame, file, picture, joints_mm, known)


def survey_stills(settings: BuildSettings, part: Part) -> Survey:
    """Pictures by camera, how each camera was read, what is not there, and poses that no person has."""
    take: StillTake = part.content
    counts: dict[tuple[str, str, str], int] = {}
    damage = list(take.lost)
    for view in take.views:
        missing, known = lacking(settings.raw, view.files), _supervised(view)
        faults = [
            Skipped(file, frame, fault)
            for frame, file, joints_mm, joints in zip(view.frames, view.files, view.joints_mm, known, strict=True)
            if (fault := MISSING if file in missing else pose_fault(joints_mm, joints))
        ]
        damage += faults
        counts[take.subject, take.action, view.camera] = len(view.frames) - len(faults)
    return Survey(counts, tuple(view.note for view in take.views), tuple(damage))


def _supervised(view: View) -> np.ndarray:
    """`n 17`."""
    return np.broadcast_to(ALL_JOINTS, view.joints_mm.shape[:2]) if view.supervised is None else view.supervised


def cut_parts(settings: BuildSettings, takes: list[StillTake]) -> list[Part]:
    """One part per recording, by subject's number, action and sub-action.

    Raises:
        InputError: there are none.
    """
    if not takes:
        raise InputError(f"raw: {settings.raw} has no annotated picture of the subjects and frames that were asked for")
    takes = sorted(takes, key=lambda take: (natural_order(take.subject), take.action, take.subaction))
    return [Part(f"{take.subject}_{take.action}_{take.subaction}", take) for take in takes]


def stand_camera(
    where: str,
    world_mm: np.ndarray,
    rotation: np.ndarray,
    vector_mm: np.ndarray,
    lens: Lens,
    size: tuple[int, int],
    boxes: np.ndarray,
) -> WorldCamera:
    """A camera whose convention is decided by reprojection of poses `f 17 3` mm, world, and their boxes `f 4` px.

    Raises:
        InputError: `where` is named with what does not fit.
    """
    try:
        convention = choose_convention(world_mm, rotation, vector_mm, lens.intrinsics, size, boxes)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    place = camera_position(convention, rotation, vector_mm)
    return WorldCamera(rotation, place, lens, FORMULAS[convention])


def check_skeleton(where: str, joints_mm: np.ndarray) -> None:
    """Refuse poses `f 17 3` of another unit or joint order.

    Raises:
        InputError: says what they look like.
    """
    fault = skeleton_fault(joints_mm)
    if fault:
        raise InputError(f"{where}: {fault}")


def check_pinhole(settings: BuildSettings, layout: str) -> None:
    """Refuse lens settings that need the distortion, which a layout does not store.

    Raises:
        InputError: says which lens setting is possible.
    """
    if settings.lens != "pinhole":
        raise InputError(f"lens: the {layout} layout stores no distortion, which {settings.lens} needs; take pinhole")


def spread(count: int, most: int = 64) -> np.ndarray:
    """Up to `most` indices below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)) if count else np.zeros(0, int)


def parse_name(file: str, where: Path) -> tuple[Recording, str, int]:
    """Recording, camera and frame (from 0) of `s_01_act_02_subact_01_ca_01_000001.jpg`.

    Raises:
        InputError: another kind of name.
    """
    match = PICTURE_NAME.search(file)
    subject, action, subaction, camera, number = map(int, match.groups()) if match else (0,) * 5
    if not (2 <= action < 2 + len(ACTIONS) and 1 <= camera <= len(CAMERAS) and number):
        raise InputError(f"{where}: {file} is not named s_.._act_.._subact_.._ca_.._000001.jpg")
    return Recording(f"S{subject}", ACTIONS[action - 2], subaction), CAMERAS[camera - 1], number - 1


def has_pictures(raw: Path, take: Recording) -> bool:
    """Whether `images/` holds a folder of the recording, named as in `parse_name`."""
    number, action = int(take.subject[1:]), ACTIONS.index(take.action) + 2
    return any((raw / "images").glob(f"s_{number:02d}_act_{action:02d}_subact_{take.subaction:02d}_ca_*"))
