"""Tiny raw data in the official layouts, with known truth."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import av
import cdflib.cdfwrite
import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

from poselib.camera import project, world_to_camera
from poselib.skeleton import H36M_FROM_RAW32

CAMERAS = ("54138969", "55011271", "58860488", "60457274")
WIDTH, HEIGHT = 160, 168
BLOB_JOINT = 13
"""The joint that is drawn as a bright spot into every frame."""


def camera_numbers() -> np.ndarray:
    """`w0`: every subject and camera its own angles and position, 4 metres away, looking at the person."""
    extrinsics = np.zeros((4, 11, 6))
    for camera in range(4):
        for subject in range(11):
            tilt, turn = -np.pi / 2 + 0.02 * subject, np.pi / 2 * camera + 0.03
            # Looking along +y after the tilt about x; the turn is about the world's z, applied first.
            extrinsics[camera, subject, :3] = tilt, 0.0, 0.0
            extrinsics[camera, subject, 2] = turn
    for camera in range(4):
        for subject in range(11):
            rotation = _rotation(*extrinsics[camera, subject, :3])
            extrinsics[camera, subject, 3:] = np.array([0, 0, 900.0]) - rotation.T @ [30.0, 20.0, 4000.0]
    intrinsics = [[180 + c, 181 + c, 79.5 + c, 83.5, -0.2, 0.24, -0.002, -0.001, -0.0015] for c in range(4)]
    return np.concatenate([extrinsics.ravel(), np.ravel(intrinsics)])


def _rotation(x: float, y: float, z: float) -> np.ndarray:
    """Written out by hand from the Matlab code, not shared with the reader."""
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return rx @ ry @ rz


@dataclass(frozen=True)
class Recording:
    """What a test needs to know of the raw Human3.6M folder."""

    raw: Path
    poses: dict[tuple[str, str], np.ndarray]
    w0: np.ndarray

    def in_camera(self, subject: str, stem: str, camera: str, frame: int) -> np.ndarray:
        """The true 17 joints, mm, camera frame."""
        numbers = self.w0[:264].reshape(4, 11, 6)[CAMERAS.index(camera), int(subject[1:]) - 1]
        return world_to_camera(
            self.poses[subject, stem][frame][list(H36M_FROM_RAW32)], _rotation(*numbers[:3]), numbers[3:]
        )

    def lens(self, camera: str) -> tuple[np.ndarray, np.ndarray]:
        """Intrinsics and distortion."""
        numbers = self.w0[264:].reshape(4, 9)[CAMERAS.index(camera)]
        return numbers[:4], numbers[4:]


def write_metadata(path: Path, w0: np.ndarray, takes: list[tuple[int, int, dict[str, str]]]) -> None:
    subjects = [f"S{i}" for i in range(1, 12)]
    row = "<tr><td></td><td></td>" + "".join(f"<td>{s}</td>" for s in subjects) + "</tr>"
    for action, subaction, stems in takes:
        row += f"<tr><td>{action}</td><td>{subaction}</td>"
        row += "".join(f"<td>{stems.get(s, '')}</td>" for s in subjects) + "</tr>"
    numbers = " ".join(f"{number:.10g}" for number in w0)
    cameras = "".join(f"<id>{name}</id>" for name in CAMERAS)
    path.write_text(
        f"<?xml version='1.0'?><db><mapping>{row}</mapping><w0>[{numbers}]</w0>"
        f"<dbcameras><index2id>{cameras}</index2id></dbcameras></db>"
    )


def write_video(path: Path, frames: list[np.ndarray], **options: str) -> None:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=50, options={"crf": "12", "preset": "ultrafast", "g": "6"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_poses(path: Path, poses: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cdf = cdflib.cdfwrite.CDF(path, cdf_spec={"Compressed": 0}, delete=True)
    shape = [len(poses), poses.shape[1] * 3]
    spec = {"Variable": "Pose", "Data_Type": 44, "Num_Elements": 1, "Rec_Vary": True, "Dim_Sizes": shape}
    cdf.write_var(spec, var_data=poses.reshape(1, *shape).astype(np.float32))
    cdf.close()


def blob(centre: np.ndarray) -> np.ndarray:
    """A frame with a soft bright spot at `centre` px (continuous) on dark grey."""
    xs, ys = np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5
    spot = np.exp(-((xs[None] - centre[0]) ** 2 + (ys[:, None] - centre[1]) ** 2) / (2 * 2.5**2))
    return np.repeat((40 + 200 * spot)[..., None], 3, axis=-1).astype(np.uint8)


def standing_person(rng: np.random.Generator) -> np.ndarray:
    """The 32 raw joints of somebody who stands at the origin with an arm raised, mm: bones of human length."""
    half = np.array(
        [
            *([0, 0, 0], [-130, 0, 0], [-150, -30, -440], [-150, 30, -880]),  # pelvis, right leg
            *([130, 0, 0], [150, -30, -440], [150, 30, -880]),
            *([0, 10, 230], [0, 20, 480], [0, -60, 580], [0, -20, 690]),  # spine, thorax, neck, head
            *([150, 10, 460], [200, 20, 190], [220, -60, -50]),
            *([-150, 10, 460], [-200, -10, 190], [-330, -60, 390]),
        ],
        float,
    )
    turn = _rotation(0.0, 0.0, rng.uniform(-np.pi, np.pi))
    joints = np.zeros((32, 3))
    joints[list(H36M_FROM_RAW32)] = half @ turn.T + rng.uniform(-10, 10, (17, 3))
    return joints


def write_human36m(raw: Path, stems: dict[str, tuple[str, ...]], frames: int, cameras: int = 2) -> Recording:
    rng = np.random.default_rng(7)
    w0 = np.array([float(f"{number:.10g}") for number in camera_numbers()])
    recording = Recording(raw, {}, w0)
    for subject, names in stems.items():
        (raw / subject / "Videos").mkdir(parents=True)
        for stem in names:
            shape = standing_person(rng) + np.array([0, 0, 900])
            drift = np.linspace(0, 150, frames)[:, None, None] * rng.uniform(-1, 1, 3)
            poses = (shape + drift).astype(np.float32).astype(float)
            recording.poses[subject, stem] = poses
            write_poses(raw / subject / "MyPoseFeatures" / "D3_Positions" / f"{stem}.cdf", poses)
            for camera in CAMERAS[:cameras]:
                intrinsics, distortion = recording.lens(camera)
                spots = [
                    project(recording.in_camera(subject, stem, camera, f), intrinsics, distortion)[BLOB_JOINT]
                    for f in range(frames)
                ]
                write_video(raw / subject / "Videos" / f"{stem}.{camera}.mp4", [blob(spot) for spot in spots])
    takes = [
        (2, 1, {"S1": "Directions 1", "S11": "Directions 1"}),
        (2, 2, {"S1": "Directions", "S11": "Directions"}),
        (12, 1, {"S1": "Photo 1"}),
    ]
    write_metadata(raw / "metadata.xml", w0, takes)
    return recording


@pytest.fixture(scope="session")
def human36m(tmp_path_factory) -> Recording:
    stems = {"S1": ("Directions 1", "Directions", "Photo 1"), "S11": ("Directions", "Walking 1")}
    return write_human36m(tmp_path_factory.mktemp("h36m"), stems, frames=12)


def mpii_point(index: int, x: float, y: float) -> dict:
    return {"x": x, "y": y, "id": index, "is_visible": 1}


def write_mpii(raw: Path, count: int) -> dict[str, np.ndarray]:
    """Pictures with one or two people; returns the true joints `16 2` (1-based, as annotated) by picture."""
    rng = np.random.default_rng(3)
    (raw / "images").mkdir(parents=True)
    truth, entries = {}, []
    for number in range(count):
        name = f"{number:09d}.jpg"
        Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(raw / "images" / name)
        joints = rng.uniform((40, 20), (80, 80), (16, 2)).round(2)
        truth[name] = joints
        person = {
            "x1": 50.0, "y1": 10.0, "x2": 62.0, "y2": 26.0, "scale": 0.3, "objpos": {"x": 60.0, "y": 50.0},
            "annopoints": {"point": [mpii_point(i, *joint) for i, joint in enumerate(joints)]},
        }  # fmt: skip
        rects = [person] if number % 2 else [person, {"x1": 1.0, "y1": 1.0, "x2": 5.0, "y2": 5.0}]
        entries.append({"image": {"name": name}, "annorect": _structs(rects)})
    training = np.ones(count, np.uint8)
    training[-1] = 0
    release = {"annolist": _structs(entries), "img_train": training, "single_person": np.zeros(count)}
    scipy.io.savemat(raw / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})
    return truth


def _structs(entries: list[dict]) -> np.ndarray:
    """A Matlab struct array: the union of the fields, missing ones empty, as in the release."""
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    array = np.empty((1, len(entries)), dtype=[(name, object) for name in names])
    for place, entry in enumerate(entries):
        for name in names:
            value = entry.get(name, np.zeros((0, 0)))
            if name == "annopoints" and isinstance(value, dict):
                value = {"point": _structs(value["point"])}
            array[0, place][name] = value
    return array


@pytest.fixture(scope="session")
def mpii(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    raw = tmp_path_factory.mktemp("mpii")
    return raw, write_mpii(raw, 9)


@pytest.fixture(scope="session")
def voc(tmp_path_factory) -> Path:
    """One picture of five objects: usable, person, difficult, truncated, too small."""
    raw = tmp_path_factory.mktemp("voc")
    for name in ("JPEGImages", "Annotations", "SegmentationObject"):
        (raw / name).mkdir()
    labels = np.zeros((100, 150), np.uint8)
    picture = np.full((100, 150, 3), 90, np.uint8)
    kinds = (("dog", 0, 0, 30), ("person", 0, 0, 30), ("cat", 1, 0, 30), ("car", 0, 1, 30), ("bird", 0, 0, 24))
    objects = ""
    for index, (name, difficult, truncated, side) in enumerate(kinds):
        left = 30 * index
        centre = (left + side // 2, 10 + side // 2)
        cv2.circle(labels, centre, side // 2 - 1, index + 1, -1)
        objects += (
            f"<object><name>{name}</name><difficult>{difficult}</difficult><truncated>{truncated}</truncated><bndbox>"
            f"<xmin>{left}</xmin><ymin>10</ymin><xmax>{left + side}</xmax><ymax>{10 + side}</ymax></bndbox></object>"
        )
    image = Image.fromarray(labels, mode="P")
    image.putpalette(np.random.default_rng(0).integers(0, 255, 768, dtype=np.uint8).tobytes())
    image.save(raw / "SegmentationObject" / "2007_000001.png")
    Image.fromarray(picture).save(raw / "JPEGImages" / "2007_000001.jpg")
    (raw / "Annotations" / "2007_000001.xml").write_text(f"<annotation><segmented>1</segmented>{objects}</annotation>")
    return raw


@pytest.fixture(scope="session")
def raw_writers():
    """This file's writers, for tests that damage raw data."""
    return SimpleNamespace(write_poses=write_poses, write_video=write_video, write_mpii=write_mpii)
