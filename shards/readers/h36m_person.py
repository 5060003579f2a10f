"""One pose in one frame of Human3.6M -> `Person`, the same for every layout."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from poselib.camera import fit_aspect, project, root_box, tight_box
from poselib.errors import InputError
from poselib.skeleton import H36M_JOINTS, ROOT
from shards.readers.checks import frame_fault, size_fault
from shards.readers.h36m_faults import Recording
from shards.records import Skipped
from shards.sample import Names
from shards.settings import BuildSettings
from shards.source import Person, outside

ALL_JOINTS: Final = np.ones(len(H36M_JOINTS))


@dataclass(frozen=True, eq=False)
class Lens:
    """A camera's own numbers: intrinsics `4` (fx fy cx cy, px) and distortion `5` (k1 k2 k3 p1 p2)."""

    intrinsics: np.ndarray
    distortion: np.ndarray


def make_person(
    settings: BuildSettings,
    take: Recording,
    camera: str,
    lens: Lens,
    frame: int,
    file: str,
    picture: np.ndarray,
    joints_mm: np.ndarray,
    supervised: np.ndarray = ALL_JOINTS,
) -> Person | Skipped:
    """The person, or what is wrong with the annotation.

    Args:
        settings: `lens` and `box` are read.
        take, camera, frame: of the sample's names.
        lens: of the camera.
        file: path of video or picture below the raw folder.
        picture: uint8 `h w 3`, RGB, as filmed.
        joints_mm: `17 3` mm, camera frame.
        supervised: `17`, 0 for joints that the annotation does not vouch for.
    """
    fault = pose_fault(joints_mm, supervised) or size_fault(lens.intrinsics, (picture.shape[1], picture.shape[0]))
    if fault:
        return Skipped(file, frame, fault)
    distortion = lens.distortion if settings.lens == "brown" else None
    joints_px = project(joints_mm, lens.intrinsics, distortion)
    fault = outside(joints_px, supervised, picture) or outside(joints_px[[ROOT]], np.ones(1), picture)
    if fault:
        return Skipped(file, frame, fault)
    if settings.box == "tight":
        box = fit_aspect(tight_box(joints_px[supervised > 0]), 1.0)
    else:
        box = root_box(joints_mm[ROOT], lens.intrinsics, distortion)
    return Person(
        key=f"{take.subject}_{take.action}_{take.subaction}_{camera}_{frame:06d}",
        names=Names("h36m", file, take.subject, take.action, take.subaction, camera, frame),
        picture=picture,
        joints_px=joints_px,
        joints_mm=joints_mm * supervised[:, None],
        supervised_px=supervised,
        supervised_mm=supervised,
        box=box,
        intrinsics=lens.intrinsics,
        distortion=lens.distortion,
    )


def pose_fault(joints_mm: np.ndarray, supervised: np.ndarray = ALL_JOINTS) -> str:
    """What is wrong with a pose `17 3` mm, camera frame, whatever its picture shows, or an empty text."""
    if not supervised.any():
        return "none of its joints is known"
    fault = frame_fault(joints_mm)
    if not fault and joints_mm[:, 2].min() <= 0:
        return "a joint lies behind the camera: pose and camera do not fit"
    return fault


def is_wanted(frame: int, settings: BuildSettings) -> bool:
    """Whether a frame, counted from 0, is kept."""
    return frame % settings.every == 0 or bool(settings.every_test and frame % settings.every_test == 0)


def count_wanted(frames: int, settings: BuildSettings) -> int:
    """How many of so many frames are kept; not counted one by one, since a damaged file may claim any number."""
    steps = [settings.every] + ([settings.every_test] if settings.every_test else [])
    both = math.lcm(*steps)
    return sum(-(-frames // step) for step in steps) - (-(-frames // both) if len(steps) > 1 else 0)


def check_subjects(settings: BuildSettings, found: list[str]) -> None:
    """Refuse subjects that are not there.

    Raises:
        InputError: names them, and those that are.
    """
    missing = sorted(set(settings.subjects) - set(found))
    if missing:
        raise InputError(f"subjects: {', '.join(missing)} not found in {settings.raw}, which has {', '.join(found)}")
