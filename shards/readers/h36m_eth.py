"""Human3.6M as pickled for integral regression and the ETH course: lists of records beside pictures.

    annot/train.pkl, annot/valid.pkl ...    {camera: [record]} or [record]; a record has
        image                    s_01_act_02_subact_01_ca_01/s_01_act_02_subact_01_ca_01_000001.jpg, counted from 1
        joints_3d                17x3: px, px, mm behind the pelvis; pinhole
        joints_3d_vis            17x3, 0 where unknown
        pelvis                   3 mm, camera frame
        fl, c_p                  focal length and principal point, 2 px each
    images/

There is no world frame, so no camera convention to decide; the pelvis must project onto joint 0 instead. Recordings
that are known to be shifted in the world cannot be corrected here, and are left out where that is asked for.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from poselib.camera import back_project, project
from poselib.errors import InputError
from poselib.skeleton import ROOT
from shards.readers.h36m_faults import Recording, fault_lines, left_out
from shards.readers.h36m_metadata import CAMERAS
from shards.readers.h36m_person import Lens, check_subjects, is_wanted
from shards.readers.h36m_stills import (
    StillTake,
    View,
    check_pinhole,
    check_skeleton,
    cut_parts,
    has_pictures,
    parse_name,
    read_stills,
    spread,
    survey_stills,
)
from shards.readers.pictures import inner_path
from shards.readers.safe_pickle import load_pickle
from shards.records import Skipped
from shards.settings import BuildSettings
from shards.source import Part, Reader
from shards.table import natural_order

PELVIS_SLACK_PX: Final = 2.0
NOTE: Final = "camera frame as stored, pelvis projected onto joint 0"


@dataclass(frozen=True, eq=False)
class Shot:
    """One wanted record: frame from 0, path below the raw folder, camera-frame joints `17 3` mm, known joints `17`."""

    frame: int
    file: str
    joints_mm: np.ndarray
    supervised: np.ndarray
    lens: Lens


def detect(raw: Path) -> bool:
    """Whether `raw` holds this layout."""
    return any((raw / "annot").glob("*.pkl")) and (raw / "images").is_dir()


def parts(settings: BuildSettings) -> list[Part]:
    """One part per recording; a picture that several files list is taken once.

    Raises:
        InputError: a file is damaged, carries code, or is in another unit or joint order.
    """
    check_pinhole(settings, "ETH")
    shots: dict[tuple[str, str, int], dict[str, dict[int, Shot]]] = defaultdict(lambda: defaultdict(dict))
    lost: dict[tuple[str, str, int], dict[str, Skipped]] = defaultdict(dict)
    subjects = set()
    for path in sorted((settings.raw / "annot").glob("*.pkl")):
        for record in _records(path):
            take, camera, frame = parse_name(_file(record, path), path)
            subjects.add(take.subject)
            if not _is_taken(settings, take, camera, frame):
                continue
            shot = _shot(record, path, frame)
            if isinstance(shot, Skipped):
                lost[take.key].setdefault(shot.file, shot)
            else:
                shots[take.key][camera].setdefault(frame, shot)
    check_subjects(settings, sorted(subjects, key=natural_order))
    _check_subjects_skeletons(settings.raw, shots)
    takes = []
    for key in sorted(shots.keys() | lost.keys()):
        views = tuple(_view(camera, shots[key][camera]) for camera in CAMERAS if camera in shots[key])
        takes.append(StillTake(*key, views, tuple(lost[key].values())))
    return cut_parts(settings, takes)


def faults(settings: BuildSettings) -> tuple[str, ...]:
    """Known faults of the release that concern this set."""
    return fault_lines(settings, lambda take: has_pictures(settings.raw, take), can_correct=False)


def split(settings: BuildSettings) -> str:
    """Human3.6M is split by subjects, when it is read."""
    return ""


READER: Final = Reader(
    "h36m", "people", "annot/*.pkl beside images/", detect, parts, read_stills, faults, split, survey_stills
)


def _is_taken(settings: BuildSettings, take: Recording, camera: str, frame: int) -> bool:
    return (
        (not settings.subjects or take.subject in settings.subjects)
        and is_wanted(frame, settings)
        and not left_out(settings, take, camera, can_correct=False)
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    content = load_pickle(path)
    lists = content.values() if isinstance(content, dict) else [content]
    for records in lists:
        if not isinstance(records, list | tuple | np.ndarray):
            raise InputError(f"{path} must be a list of records, or a dictionary of such lists")
        for record in records:
            if not isinstance(record, dict):
                raise InputError(f"{path}: a record is no dictionary but {type(record).__name__}")
            yield record


def _file(record: dict[str, Any], where: Path) -> str:
    return f"images/{inner_path(record.get('image'), where).removeprefix('images/')}"


def _shot(record: dict[str, Any], where: Path, frame: int) -> Shot | Skipped:
    file = _file(record, where)
    try:
        joints = np.asarray(record["joints_3d"], float).reshape(17, 3)
        visible = np.asarray(record.get("joints_3d_vis", np.ones(17)), float).reshape(17, -1)
        pelvis_mm, focal, centre = (
            np.asarray(record[name], float).reshape(size) for name, size in (("pelvis", 3), ("fl", 2), ("c_p", 2))
        )
    except (KeyError, TypeError, ValueError) as error:
        return Skipped(file, frame, f"its record in {where.name} is not as this layout has it ({error!r})")
    lens = Lens(np.concatenate([focal, centre]), np.zeros(5))
    numbers = np.concatenate([joints.ravel(), pelvis_mm, lens.intrinsics])
    if not np.isfinite(numbers).all() or pelvis_mm[2] <= 0 or focal.min() <= 0:
        return Skipped(file, frame, f"its record in {where.name} is not finite or lies behind the camera")
    apart = np.abs(project(pelvis_mm[None], lens.intrinsics)[0] - joints[ROOT, :2]).max()
    if apart > PELVIS_SLACK_PX:
        return Skipped(file, frame, f"its pelvis projects {apart:.0f} px beside joint 0 of joints_3d")
    joints_mm = back_project(joints[:, :2], joints[:, 2] + pelvis_mm[2], lens.intrinsics)
    return Shot(frame, file, joints_mm, (visible.min(axis=1) > 0).astype(float), lens)


def _check_subjects_skeletons(raw: Path, shots: dict[tuple[str, str, int], dict[str, dict[int, Shot]]]) -> None:
    poses: dict[str, list[np.ndarray]] = defaultdict(list)
    for key, views in shots.items():
        for view in views.values():
            kept = [shot.joints_mm for shot in view.values() if shot.supervised.all()]
            poses[key[0]] += [kept[index] for index in spread(len(kept), 8)]
    for subject, sample in poses.items():
        if sample:
            check_skeleton(f"{raw / 'annot'}, {subject}", np.stack(sample))


def _view(camera: str, shots: dict[int, Shot]) -> View:
    ordered = [shots[frame] for frame in sorted(shots)]
    frames, files = tuple(shot.frame for shot in ordered), tuple(shot.file for shot in ordered)
    joints_mm, supervised = (np.stack([getattr(s, name) for s in ordered]) for name in ("joints_mm", "supervised"))
    return View(camera, ordered[0].lens, frames, files, joints_mm, NOTE, supervised)
