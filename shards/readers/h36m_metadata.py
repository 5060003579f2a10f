"""Human3.6M's `metadata.xml`: cameras and the irregular names of its recordings.

Conventions as in the release's Matlab code: `w0` holds, camera by camera and subject by subject, three Euler angles and
the camera's position; then, camera by camera, f (2), c (2), k (3), p (2).
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from poselib.errors import InputError

CAMERAS: Final = ("54138969", "55011271", "58860488", "60457274")
SUBJECTS: Final = 11
EXTRINSICS: Final = len(CAMERAS) * SUBJECTS * 6
INTRINSICS: Final = len(CAMERAS) * 9

ACTIONS: Final = (
    "Directions",
    "Discussion",
    "Eating",
    "Greeting",
    "Phoning",
    "Posing",
    "Purchases",
    "Sitting",
    "SittingDown",
    "Smoking",
    "TakingPhoto",
    "Waiting",
    "Walking",
    "WalkingDog",
    "WalkTogether",
)
"""Actions 2 to 16 of the release; action 1 holds calibration recordings."""

SPELLINGS: Final = {"Photo": "TakingPhoto", "WalkDog": "WalkingDog", "WalkingTogether": "WalkTogether"}


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera as it stood for one subject.

    Attributes:
        rotation: `3 3`, world to camera.
        position_mm: `3`, camera centre in the world frame.
        intrinsics: `4`, fx fy cx cy in px.
        distortion: `5`, k1 k2 k3 p1 p2.
    """

    rotation: np.ndarray
    position_mm: np.ndarray
    intrinsics: np.ndarray
    distortion: np.ndarray


@dataclass(frozen=True, eq=False)
class Metadata:
    """What `metadata.xml` says: cameras by (subject, camera), and (action, sub-action) by (subject, file stem)."""

    cameras: dict[tuple[str, str], Camera]
    takes: dict[tuple[str, str], tuple[str, int]]


def read_metadata(path: Path) -> Metadata:
    """Parse `metadata.xml`.

    Raises:
        InputError: no XML, or `w0` does not hold the 300 numbers of 4 cameras and 11 subjects.
    """
    try:
        root = ET.parse(path).getroot()  # noqa: S314 - expat refuses entity bombs since 2.4.1
    except (OSError, ET.ParseError) as error:
        raise InputError(f"{path} cannot be read as XML ({error})") from error
    text = (root.findtext("w0") or "").strip().strip("[]")
    try:
        numbers = np.array([float(number) for number in re.split(r"[\s,;]+", text) if number])
    except ValueError as error:
        raise InputError(f"{path}: w0 holds something that is no number ({error})") from error
    if numbers.size != EXTRINSICS + INTRINSICS or not np.isfinite(numbers).all():
        raise InputError(f"{path}: w0 must hold {EXTRINSICS + INTRINSICS} finite numbers, found {numbers.size}")
    return Metadata(_cameras(numbers, _camera_names(root)), _takes(root))


def rotation_matrix(angles: np.ndarray) -> np.ndarray:
    """Rotation `3 3` of three angles in radians, R = Rx Ry Rz, as in the release's Matlab code."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles), np.cos(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def guess_take(stem: str, stems: list[str]) -> tuple[str, int]:
    """Action and sub-action of a recording that `mapping` does not name.

    The lower numbered of an action's two recordings is sub-action 1; a bare name counts as the last, as in the release.
    """

    def split(name: str) -> tuple[str, int]:
        action, _, number = name.partition(" ")
        return action, int(number) if number.isdigit() else 99

    action, number = split(stem)
    order = sorted(other for name, other in map(split, stems) if name == action)
    return SPELLINGS.get(action, action), order.index(number) + 1


def _camera_names(root: ET.Element) -> tuple[str, ...]:
    names = tuple((element.text or "").strip() for element in root.findall("dbcameras/index2id/*"))
    return names if len(names) == len(CAMERAS) and all(names) else CAMERAS


def _cameras(numbers: np.ndarray, names: tuple[str, ...]) -> dict[tuple[str, str], Camera]:
    extrinsics = numbers[:EXTRINSICS].reshape(len(CAMERAS), SUBJECTS, 6)
    intrinsics = numbers[EXTRINSICS:].reshape(len(CAMERAS), 9)
    return {
        (f"S{subject + 1}", name): Camera(
            rotation_matrix(extrinsics[index, subject, :3]),
            extrinsics[index, subject, 3:],
            intrinsics[index, :4],
            intrinsics[index, 4:],
        )
        for index, name in enumerate(names)
        for subject in range(SUBJECTS)
    }


def _takes(root: ET.Element) -> dict[tuple[str, str], tuple[str, int]]:
    """The table of `mapping`: a row of subjects, then rows of action, sub-action and one file stem per subject."""
    rows = [[(cell.text or "").strip() for cell in row] for row in root.findall("mapping/*")]
    takes: dict[tuple[str, str], tuple[str, int]] = {}
    for action, subaction, *stems in rows[1:]:
        if not (action.isdigit() and subaction.isdigit() and 2 <= int(action) < 2 + len(ACTIONS)):
            continue
        for subject, stem in zip(rows[0][2:], stems, strict=False):
            takes[subject, stem] = (ACTIONS[int(action) - 2], int(subaction))
    return takes
