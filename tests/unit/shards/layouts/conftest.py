"""The studio's people, converted from the official layouts into the others that are in use."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import scipy.io

from shards.readers.h36m_metadata import ACTIONS, CAMERAS, read_metadata
from shards.readers.human36m import read_poses

KF_ORDER = (3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13, 9)
"""Our joint behind each of KF's keypoints; written out by hand, not shared with the reader."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of the studio with its truth in the world."""

    subject: str
    action: str
    subaction: int
    camera: str
    index: int
    world_mm: np.ndarray
    picture: np.ndarray

    @property
    def key(self) -> str:
        return f"{self.subject}_{self.action}_{self.subaction}_{self.camera}_{self.index:06d}"

    @property
    def name(self) -> str:
        action, camera = ACTIONS.index(self.action) + 2, CAMERAS.index(self.camera) + 1
        folder = f"s_{int(self.subject[1:]):02d}_act_{action:02d}_subact_{self.subaction:02d}_ca_{camera:02d}"
        return f"{folder}/{folder}_{self.index + 1:06d}.jpg"


class StudioTruth:
    """All pictures of the studio, and its cameras."""

    def __init__(self, raw: Path) -> None:
        self.metadata = read_metadata(raw / "metadata.xml")
        self.frames = [
            Frame(subject, *self.metadata.takes[subject, path.stem], camera, index, pose, picture)
            for subject in ("S1", "S9")
            for path in sorted((raw / subject / "MyPoseFeatures/D3_Positions").glob("*.cdf"))
            for camera in CAMERAS
            for index, (pose, picture) in enumerate(
                zip(read_poses(path), self.film(raw / subject / "Videos" / f"{path.stem}.{camera}.mp4"), strict=True)
            )
        ]

    @staticmethod
    def film(path: Path) -> list[np.ndarray]:
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    def camera(self, frame: Frame):
        return self.metadata.cameras[frame.subject, frame.camera]

    def in_camera(self, frame: Frame) -> np.ndarray:
        camera = self.camera(frame)
        return (camera.rotation @ (frame.world_mm - camera.position_mm).T).T

    def in_picture(self, frame: Frame) -> np.ndarray:
        """The pinhole's view, written out."""
        x, y, z = self.in_camera(frame).T
        fx, fy, cx, cy = self.camera(frame).intrinsics
        return np.stack([fx * x / z + cx, fy * y / z + cy], axis=-1)

    def box(self, frame: Frame) -> list[float]:
        joints = self.in_picture(frame)
        return [*joints.min(axis=0).tolist(), *np.ptp(joints, axis=0).tolist()]


def write_picture(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])


def write_mks0601(truth: StudioTruth, raw: Path, raw_position: bool = False, scale: float = 1.0) -> Path:
    (raw / "annotations").mkdir(parents=True)
    for subject in ("S1", "S9"):
        images, notes, poses, cameras = [], [], {}, {}
        for number, frame in enumerate(f for f in truth.frames if f.subject == subject):
            action, camera = ACTIONS.index(frame.action) + 2, CAMERAS.index(frame.camera) + 1
            numbers = truth.camera(frame)
            place = numbers.position_mm if raw_position else -numbers.rotation @ numbers.position_mm
            cameras[str(camera)] = {
                "R": numbers.rotation.tolist(), "t": (place * scale).tolist(),
                "f": numbers.intrinsics[:2].tolist(), "c": numbers.intrinsics[2:].tolist(),
            }  # fmt: skip
            height, width = frame.picture.shape[:2]
            images.append({
                "id": number, "file_name": frame.name, "width": width, "height": height, "subject": int(subject[1:]),
                "action_name": frame.action, "action_idx": action, "subaction_idx": frame.subaction,
                "cam_idx": camera, "frame_idx": frame.index,
            })  # fmt: skip
            notes.append({"id": number, "image_id": number, "keypoints_vis": [True] * 17, "bbox": truth.box(frame)})
            by_take = poses.setdefault(str(action), {}).setdefault(str(frame.subaction), {})
            by_take[str(frame.index)] = (frame.world_mm * scale).tolist()
            write_picture(raw / "images" / frame.name, frame.picture)
        files = {"data": {"images": images, "annotations": notes}, "camera": cameras, "joint_3d": poses}
        for kind, content in files.items():
            (raw / "annotations" / f"Human36M_subject{subject[1:]}_{kind}.json").write_text(json.dumps(content))
    return raw


def eth_record(truth: StudioTruth, frame: Frame) -> dict:
    joints_mm, intrinsics = truth.in_camera(frame), truth.camera(frame).intrinsics
    x, y, width, height = truth.box(frame)
    return {
        "image": frame.name, "center_x": x + width / 2, "center_y": y + height / 2, "width": width, "height": height,
        "joints_3d": np.column_stack([truth.in_picture(frame), joints_mm[:, 2] - joints_mm[0, 2]]),
        "joints_3d_vis": np.ones((17, 3)), "pelvis": joints_mm[0], "fl": intrinsics[:2], "c_p": intrinsics[2:],
        "cam": CAMERAS.index(frame.camera) + 1,
    }  # fmt: skip


def write_eth(truth: StudioTruth, raw: Path) -> Path:
    """One split as a dictionary by camera, one as a flat list, pickled by an old protocol."""
    (raw / "annot").mkdir(parents=True)
    train: dict[int, list] = {}
    for frame in truth.frames:
        write_picture(raw / "images" / frame.name, frame.picture)
        if frame.subject == "S1":
            train.setdefault(CAMERAS.index(frame.camera), []).append(eth_record(truth, frame))
    test = [eth_record(truth, frame) for frame in truth.frames if frame.subject == "S9"]
    (raw / "annot" / "train.pkl").write_bytes(pickle.dumps(train))
    (raw / "annot" / "test.pkl").write_bytes(pickle.dumps(test, 2))
    return raw


def kf_labels(truth: StudioTruth) -> dict:
    subjects = ["S1", "S9"]
    actions = sorted({f"{frame.action}-{frame.subaction}" for frame in truth.frames})
    cameras = np.zeros((2, 4), [("R", "<f4", (3, 3)), ("t", "<f4", (3, 1)), ("K", "<f4", (3, 3)), ("dist", "<f4", 5)])
    columns = [
        ("subject_idx", "i1"), ("action_idx", "i1"), ("frame_idx", "<i2"), ("keypoints", "<f4", (17, 3)),
        ("bbox_by_camera_tlbr", "<i2", (4, 4)),
    ]  # fmt: skip
    rows: dict[tuple, np.ndarray] = {}
    for frame in truth.frames:
        camera, place = truth.camera(frame), CAMERAS.index(frame.camera)
        fx, fy, cx, cy = camera.intrinsics
        k1, k2, k3, p1, p2 = camera.distortion
        entry = cameras[subjects.index(frame.subject), place]
        entry["R"], entry["t"][:, 0] = camera.rotation, -camera.rotation @ camera.position_mm
        entry["K"], entry["dist"] = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], [k1, k2, p1, p2, k3]
        key = subjects.index(frame.subject), actions.index(f"{frame.action}-{frame.subaction}"), frame.index
        row = rows.setdefault(key, np.zeros(1, columns)[0])
        row["subject_idx"], row["action_idx"], row["frame_idx"] = key
        row["keypoints"] = frame.world_mm[list(KF_ORDER)]
        x, y, width, height = truth.box(frame)
        row["bbox_by_camera_tlbr"][place] = y, x, y + height, x + width
    table = np.array(list(rows.values()), columns)
    return {
        "subject_names": subjects, "camera_names": list(CAMERAS), "action_names": actions, "cameras": cameras,
        "table": table,
    }  # fmt: skip


def write_kf(truth: StudioTruth, raw: Path) -> Path:
    (raw / "extra").mkdir(parents=True)
    np.save(raw / "extra" / "human36m-multiview-labels-GTbboxes.npy", kf_labels(truth), allow_pickle=True)
    for frame in truth.frames:
        folder = raw / "processed" / frame.subject / f"{frame.action}-{frame.subaction}" / "imageSequence"
        write_picture(folder / frame.camera / f"img_{frame.index + 1:06d}.jpg", frame.picture)
    return raw


def write_hrnet(official: Path, raw: Path) -> Path:
    """MPII's annotations as JSON lists; every fourth picture validates."""
    (raw / "annot").mkdir(parents=True)
    (raw / "images").symlink_to(official / "images")
    release = scipy.io.loadmat(next(official.glob("*.mat")), struct_as_record=False, squeeze_me=True)["RELEASE"]
    lists: dict[str, list] = {"train.json": [], "valid.json": []}
    for number, entry in enumerate(release.annolist):
        points = getattr(getattr(entry.annorect, "annopoints", None), "point", None)
        if not release.img_train[number] or points is None or not np.size(points):
            continue
        joints, visible = np.zeros((16, 2)), np.zeros(16)
        for point in np.ravel(points):
            joints[int(point.id)], visible[int(point.id)] = (point.x, point.y), 1
        lists["valid.json" if number % 4 == 0 else "train.json"].append({
            "image": entry.image.name, "scale": float(entry.annorect.scale),
            "center": [float(entry.annorect.objpos.x), float(entry.annorect.objpos.y)],
            "joints": joints.tolist(), "joints_vis": visible.tolist(),
        })  # fmt: skip
    for name, records in lists.items():
        (raw / "annot" / name).write_text(json.dumps(records))
    return raw


@pytest.fixture(scope="session")
def truth(studio) -> StudioTruth:
    return StudioTruth(studio / "h36m")


@pytest.fixture(scope="session")
def layouts(studio, truth, tmp_path_factory) -> dict[str, Path]:
    """The studio by layout. Read only."""
    out = tmp_path_factory.mktemp("layouts")
    return {
        "h36m": studio / "h36m",
        "h36m_mks0601": write_mks0601(truth, out / "mks0601"),
        "h36m_eth": write_eth(truth, out / "eth"),
        "h36m_kf": write_kf(truth, out / "kf"),
        "mpii": studio / "mpii",
        "mpii_hrnet": write_hrnet(studio / "mpii", out / "hrnet"),
    }


@pytest.fixture(scope="session")
def converters() -> SimpleNamespace:
    """This file's writers, for tests that damage raw data."""
    return SimpleNamespace(mks0601=write_mks0601, eth_record=eth_record, kf_labels=kf_labels, hrnet=write_hrnet)
