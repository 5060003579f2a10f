"""Human3.6M as labelled by the learnable triangulation of human pose (KF): one `.npy` beside pictures.

    human36m-multiview-labels-*.npy    also in extra/. A dictionary: subject_names, camera_names, action_names;
        cameras[subject, camera]: R 3x3, t 3x1 mm, K 3x3, dist 5 (k1 k2 p1 p2 k3, as OpenCV has them);
        table: subject_idx, action_idx, frame_idx (from 0), keypoints 17x3 mm world,
        bbox_by_camera_tlbr[camera]: top left bottom right, all zero where that view is missing
    S1/Phoning-1/imageSequence/54138969/img_000001.jpg    also in processed/; counted from 1

Keypoints have an order of their own. `t` is -R T: reprojection must agree.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np

from poselib.errors import InputError
from poselib.skeleton import H36M_FROM_RAW32
from shards.readers.h36m_faults import Recording, corrected, fault_lines, left_out
from shards.readers.h36m_metadata import SPELLINGS
from shards.readers.h36m_person import Lens, check_subjects, is_wanted
from shards.readers.h36m_stills import (
    StillTake,
    View,
    WorldCamera,
    check_skeleton,
    cut_parts,
    read_stills,
    spread,
    stand_camera,
    survey_stills,
)
from shards.readers.pictures import picture_size, plain_name
from shards.readers.safe_pickle import load_npy
from shards.settings import BuildSettings
from shards.source import Part, Reader

LABELS: Final = "human36m-multiview-labels*.npy"
RAW32_OF_KEYPOINT: Final = (3, 2, 1, 6, 7, 8, 0, 12, 13, 15, 27, 26, 25, 17, 18, 19, 14)
"""Which of the 32 raw joints each keypoint is."""
H36M_FROM_KF: Final = tuple(RAW32_OF_KEYPOINT.index(joint) for joint in H36M_FROM_RAW32)
COLUMNS: Final = ("subject_idx", "action_idx", "frame_idx", "keypoints", "bbox_by_camera_tlbr")


def detect(raw: Path) -> bool:
    """Whether `raw` holds this layout."""
    return _label_file(raw) is not None


def parts(settings: BuildSettings) -> list[Part]:
    """One part per recording.

    Raises:
        InputError: the labels are damaged, carry code, are in another unit or joint order, or a camera fits nowhere.
    """
    path = _label_file(settings.raw)
    if path is None:
        raise InputError(f"{settings.raw} holds no {LABELS}")
    labels = _labels(path)
    subjects = [plain_name(name, path) for name in labels["subject_names"]]
    for name in labels["camera_names"]:
        plain_name(name, path)
    check_subjects(settings, subjects)
    table = labels["table"]
    table = table[[is_wanted(int(frame), settings) for frame in table["frame_idx"]]]
    takes: list[StillTake] = []
    for index, subject in enumerate(subjects):
        rows = table[table["subject_idx"] == index]
        if len(rows) and (not settings.subjects or subject in settings.subjects):
            world_mm = rows["keypoints"][spread(len(rows))].astype(float)[:, H36M_FROM_KF]
            check_skeleton(f"{path}, {subject}", world_mm)
            try:
                takes += _subject(settings, path, labels, index, rows)
            except (IndexError, TypeError, ValueError) as error:
                raise InputError(f"{path}, {subject}: its cameras or actions do not fit its table ({error})") from error
    return cut_parts(settings, takes)


def faults(settings: BuildSettings) -> tuple[str, ...]:
    """Known faults of the release that concern this set."""
    root = _picture_root(settings.raw)
    return fault_lines(settings, lambda take: (root / take.subject / f"{take.action}-{take.subaction}").is_dir())


def split(settings: BuildSettings) -> str:
    """Human3.6M is split by subjects, when it is read."""
    return ""


READER: Final = Reader(
    "h36m", "people", f"{LABELS} beside S1/*/imageSequence/", detect, parts, read_stills, faults, split, survey_stills
)


def _label_file(raw: Path) -> Path | None:
    found = sorted(raw.glob(LABELS)) + sorted(raw.glob(f"extra/{LABELS}"))
    return found[0] if found else None


def _picture_root(raw: Path) -> Path:
    return raw / "processed" if (raw / "processed").is_dir() else raw


def _labels(path: Path) -> dict[str, Any]:
    labels = load_npy(path)
    content = labels.item() if labels.size == 1 else None
    names = ("subject_names", "camera_names", "action_names", "cameras", "table")
    if not isinstance(content, dict) or any(name not in content for name in names):
        raise InputError(f"{path} must hold a dictionary of {', '.join(names)}")
    table, cameras = content["table"], content["cameras"]
    lacking = [name for name in COLUMNS if name not in _columns(table)]
    lacking += [name for name in ("R", "t", "K", "dist") if name not in _columns(cameras)]
    if lacking:
        raise InputError(f"{path}: its table or cameras lack {', '.join(lacking)}")
    shape = (len(content["subject_names"]), len(content["camera_names"]))
    if cameras.shape != shape or table["keypoints"].shape[1:] != (17, 3):
        raise InputError(f"{path}: cameras must be {shape[0]} x {shape[1]} and keypoints 17 x 3")
    return content


def _columns(array: Any) -> tuple[str, ...]:
    return (array.dtype.names or ()) if isinstance(array, np.ndarray) else ()


def _subject(
    settings: BuildSettings, path: Path, labels: dict[str, Any], index: int, rows: np.ndarray
) -> list[StillTake]:
    subject = labels["subject_names"][index]
    cameras: dict[int, WorldCamera] = {}
    takes = []
    for action_index in np.unique(rows["action_idx"]):
        folder = plain_name(labels["action_names"][action_index], path)
        action, _, number = folder.rpartition("-")
        if not action or not number.isdigit():
            raise InputError(f"{path}: action {folder} is not named like Phoning-1")
        take = Recording(subject, SPELLINGS.get(action, action), int(number))
        own = rows[rows["action_idx"] == action_index]
        views = []
        for place, name in enumerate(labels["camera_names"]):
            kept = own[_boxes(own, place)[:, 3] > 0]
            if left_out(settings, take, name) or not len(kept):
                continue
            if place not in cameras:
                cameras[place] = _camera(settings.raw, path, labels, index, place, rows)
            views.append(_view(settings, take, f"{folder}/imageSequence", name, cameras[place], kept))
        if views:
            takes.append(StillTake(*take.key, tuple(views)))
    return takes


def _boxes(rows: np.ndarray, camera: int) -> np.ndarray:
    """x y w h."""
    top, left, bottom, right = rows["bbox_by_camera_tlbr"][:, camera].astype(float).T
    return np.stack([left, top, right - left, bottom - top], axis=-1)


def _camera(raw: Path, path: Path, labels: dict[str, Any], subject: int, place: int, rows: np.ndarray) -> WorldCamera:
    numbers, name = labels["cameras"][subject, place], labels["camera_names"][place]
    matrix, dist = np.asarray(numbers["K"], float), np.asarray(numbers["dist"], float)
    k1, k2, p1, p2, k3 = dist
    lens = Lens(matrix[[0, 1, 0, 1], [0, 1, 2, 2]], np.array([k1, k2, k3, p1, p2]))
    rows = rows[_boxes(rows, place)[:, 3] > 0]
    rows = rows[spread(len(rows))]
    where = f"{path}, {labels['subject_names'][subject]}, camera {name}"
    root = _picture_root(raw) / labels["subject_names"][subject]
    size = _picture_size([root / labels["action_names"][row["action_idx"]] / _file(name, row) for row in rows], where)
    return stand_camera(
        where,
        rows["keypoints"].astype(float)[:, H36M_FROM_KF],
        np.asarray(numbers["R"], float),
        np.asarray(numbers["t"], float).reshape(3),
        lens,
        size,
        _boxes(rows, place),
    )


def _picture_size(files: list[Path], where: str) -> tuple[int, int]:
    """Width and height of the first picture that can be read."""
    for file in files:
        try:
            return picture_size(file)
        except (OSError, ValueError):
            continue
    raise InputError(f"{where}: none of its pictures can be read, such as {files[0]}")


def _file(camera: str, row: np.ndarray) -> str:
    return f"imageSequence/{camera}/img_{int(row['frame_idx']) + 1:06d}.jpg"


def _view(
    settings: BuildSettings, take: Recording, folder: str, name: str, camera: WorldCamera, rows: np.ndarray
) -> View:
    rows = rows[np.argsort(rows["frame_idx"], kind="stable")]
    world_mm = corrected(settings, take, rows["keypoints"].astype(float)[:, H36M_FROM_KF])
    root = _picture_root(settings.raw).relative_to(settings.raw) / take.subject / folder.partition("/")[0]
    files = tuple(str(root / _file(name, row)) for row in rows)
    return View(name, camera.lens, tuple(int(f) for f in rows["frame_idx"]), files, camera.see(world_mm), camera.note)
