"""Human3.6M as parsed by the PyTorch re-implementations of integral regression (mks0601): JSON beside pictures.

    annotations/Human36M_subject1_data.json      {images: [{id, file_name, width, height, action_idx 2-16,
                                                 subaction_idx, cam_idx 1-4, frame_idx from 0}],
                                                 annotations: [{image_id, bbox: x y w h}]}
    annotations/Human36M_subject1_camera.json    {cam_idx: {R 3x3, t 3, f 2, c 2}}
    annotations/Human36M_subject1_joint_3d.json  {action_idx: {subaction_idx: {frame_idx: 17 x 3 mm, world}}}
    images/s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg    counted from 1

`t` is -R T in most copies and the raw T in some: reprojection decides. There is no distortion.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from poselib.errors import InputError
from shards.readers.h36m_faults import Recording, corrected, fault_lines, left_out
from shards.readers.h36m_metadata import CAMERAS
from shards.readers.h36m_person import Lens, check_subjects, is_wanted
from shards.readers.h36m_stills import (
    StillTake,
    View,
    WorldCamera,
    check_pinhole,
    check_skeleton,
    cut_parts,
    has_pictures,
    parse_name,
    read_stills,
    spread,
    stand_camera,
    survey_stills,
)
from shards.readers.pictures import inner_path
from shards.records import Skipped
from shards.settings import BuildSettings
from shards.source import Part, Reader
from shards.table import natural_order

PREFIX: Final = "Human36M_subject"


@dataclass(frozen=True, eq=False)
class Shot:
    """One wanted picture: frame from 0, path below the raw folder, world pose `17 3` mm, box x y w h px, its size."""

    frame: int
    file: str
    world_mm: np.ndarray
    box: tuple[float, ...]
    size: tuple[int, int]


Shots = dict[tuple[str, str, int, str], list[Shot]]
"""By subject, action, sub-action and camera."""


def detect(raw: Path) -> bool:
    """Whether `raw` holds this layout."""
    return any((raw / "annotations").glob(f"{PREFIX}*_camera.json")) and (raw / "images").is_dir()


def parts(settings: BuildSettings) -> list[Part]:
    """One part per recording. One subject's files are in memory at a time.

    Raises:
        InputError: a file is damaged, incomplete, in another unit or joint order, or a camera fits nowhere.
    """
    check_pinhole(settings, "mks0601")
    folder = settings.raw / "annotations"
    found = [f"S{path.name.removeprefix(PREFIX).partition('_')[0]}" for path in folder.glob(f"{PREFIX}*_camera.json")]
    found.sort(key=natural_order)
    check_subjects(settings, found)
    takes: list[StillTake] = []
    for subject in [name for name in found if not settings.subjects or name in settings.subjects]:
        takes += _subject(settings, folder, subject)
    return cut_parts(settings, takes)


def faults(settings: BuildSettings) -> tuple[str, ...]:
    """Known faults of the release that concern this set."""
    return fault_lines(settings, lambda take: has_pictures(settings.raw, take))


def split(settings: BuildSettings) -> str:
    """Human3.6M is split by subjects, when it is read."""
    return ""


READER: Final = Reader(
    "h36m",
    "people",
    f"annotations/{PREFIX}*_camera.json beside images/",
    detect,
    parts,
    read_stills,
    faults,
    split,
    survey_stills,
)


def _subject(settings: BuildSettings, folder: Path, subject: str) -> list[StillTake]:
    data_file, camera_file, joint_file = (
        folder / f"{PREFIX}{subject[1:]}_{kind}.json" for kind in ("data", "camera", "joint_3d")
    )
    cameras, poses, data = _load(camera_file), _load(joint_file), _load(data_file)
    try:
        shots, lost = _shots(settings, data, poses, data_file)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{data_file} or {joint_file.name} is not as this layout has it ({error!r})") from error
    if not shots:
        return []
    sample = [shot.world_mm for group in shots.values() for shot in (group[0], group[-1])]
    check_skeleton(str(joint_file), np.stack(sample))
    standing = {name: _camera(cameras, camera_file, name, shots) for name in sorted({key[3] for key in shots})}
    takes = []
    for key in sorted({key[:3] for key in shots}):
        views = [
            _view(settings, Recording(*key), name, standing[name], shots[*key, name])
            for name in CAMERAS
            if (*key, name) in shots
        ]
        takes.append(StillTake(*key, tuple(views), tuple(lost.get(key, ()))))
    return takes


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON file, or cut short ({error})") from error


def _shots(
    settings: BuildSettings, data: Any, poses: Any, where: Path
) -> tuple[Shots, dict[tuple[str, str, int], list[Skipped]]]:
    """The wanted pictures that have a pose, and those that have none, by recording."""
    wanted = {image["id"]: image for image in data["images"] if is_wanted(int(image["frame_idx"]), settings)}
    shots: Shots = defaultdict(list)
    lost: dict[tuple[str, str, int], list[Skipped]] = defaultdict(list)
    for note in data["annotations"]:
        image = wanted.get(note["image_id"])
        if image is None:
            continue
        file = f"images/{inner_path(image['file_name'], where)}"
        take, camera, frame = parse_name(file, where)
        said = tuple(int(image[name]) for name in ("action_idx", "subaction_idx", "cam_idx", "frame_idx"))
        if said[1:] != (take.subaction, CAMERAS.index(camera) + 1, frame):
            raise InputError(f"{where}: picture {image['id']} is called {file}, its fields say another frame or camera")
        if left_out(settings, take, camera):
            continue
        pose = poses.get(str(said[0]), {}).get(str(said[1]), {}).get(str(frame))
        if pose is None or np.shape(pose) != (17, 3):
            lost[take.key].append(Skipped(file, frame, "its joint_3d file has no pose 17 x 3 for it"))
            continue
        size = (int(image["width"]), int(image["height"]))
        box = tuple(float(number) for number in note["bbox"])
        shots[*take.key, camera].append(Shot(frame, file, np.asarray(pose, float), box, size))
    for group in shots.values():
        group.sort(key=lambda shot: shot.frame)
    return shots, lost


def _camera(cameras: Any, where: Path, name: str, shots: Shots) -> WorldCamera:
    """The camera of a subject, decided on pictures of all its recordings."""
    seen = [shot for key, group in shots.items() if key[3] == name for shot in group]
    seen = [seen[index] for index in spread(len(seen))]
    try:
        numbers = cameras[str(CAMERAS.index(name) + 1)]
        rotation, vector, focal, centre = (np.asarray(numbers[key], float) for key in ("R", "t", "f", "c"))
        vector = vector.reshape(3)
        lens = Lens(np.concatenate([focal.reshape(2), centre.reshape(2)]), np.zeros(5))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: camera {CAMERAS.index(name) + 1} lacks R, t, f or c ({error!r})") from error
    return stand_camera(
        f"{where}, camera {CAMERAS.index(name) + 1}",
        np.stack([shot.world_mm for shot in seen]),
        rotation,
        vector,
        lens,
        seen[0].size,
        np.array([shot.box for shot in seen]),
    )


def _view(settings: BuildSettings, take: Recording, name: str, camera: WorldCamera, shots: list[Shot]) -> View:
    world_mm = corrected(settings, take, np.stack([shot.world_mm for shot in shots]))
    frames, files = tuple(shot.frame for shot in shots), tuple(shot.file for shot in shots)
    return View(name, camera.lens, frames, files, camera.see(world_mm), camera.note)
