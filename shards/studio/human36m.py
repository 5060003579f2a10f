"""Write takes in Human3.6M's official raw layout.

    S1/MyPoseFeatures/D3_Positions/Walking 1.cdf   `Pose`, 1 x frames x 96 float32: 32 joints, mm, world
    S1/Videos/Walking 1.54138969.mp4               50 fps
    metadata.xml                                   cameras, and the names of the sub-actions

`metadata.xml` holds, in `w0`, 4 cameras x 11 subjects x (3 Euler angles, 3 translations in mm), then 4 cameras x
(f 2, c 2, k 3, p 2). The six numbers of a camera and a subject begin at 6 * (11 * camera + subject - 1). The rotation
from world to camera is R = Rx(a0) Ry(a1) Rz(a2), each right-handed, and X_cam = R (X - T), as in the code that comes
with the real set. Camera order: 54138969 55011271 58860488 60457274.

The videos say 50 fps; the motion in them is sampled `motion.TIME_STEP_S` apart.
"""

import io
import tempfile
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from cdflib.cdfwrite import CDF

from shards.atomic import write_whole
from shards.settings import StudioSettings
from shards.studio.body import load_bodies
from shards.studio.cameras import CAMERA_NAMES, StudioCamera, human36m_cameras
from shards.studio.clothes import draw_dress
from shards.studio.motion import draw_clip
from shards.studio.render import draw_person, to_bytes
from shards.studio.scene import draw_backdrop
from shards.studio.staging import Take, stage

SUBJECTS: Final = tuple(f"S{number}" for number in range(1, 12))
_CDF_FLOAT: Final = 44

ACTION_NAMES: Final = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting", "SittingDown"),
    *("Smoking", "TakingPhoto", "Waiting", "Walking", "WalkingDog", "WalkTogether"),
)
"""The official actions 2 to 16, in the metadata's order. In file names two of them are shorter."""
_FILE_NAMES: Final = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}

_IRREGULAR: Final = {
    "S1": {"Eating": (" 2", ""), "Sitting": (" 1", " 2"), "SittingDown": (" 2", "")},
    "S5": {
        **{"Directions": (" 1", " 2"), "Discussion": (" 2", " 3"), "Greeting": (" 1", " 2"), "Photo": ("", " 2")},
        **{"SittingDown": ("", " 1"), "Waiting": (" 1", " 2")},
    },
    "S6": {
        **{"Eating": (" 1", " 2"), "Photo": ("", " 1"), "Posing": (" 2", ""), "Sitting": (" 1", " 2")},
        **{"Waiting": (" 3", "")},
    },
    "S7": {
        **{"Phoning": (" 2", ""), "Photo": ("", " 1"), "SittingDown": ("", " 1"), "Waiting": (" 1", " 2")},
        **{"Walking": (" 1", " 2")},
    },
    "S8": {"SittingDown": ("", " 1"), "WalkTogether": (" 1", " 2")},
    "S9": {"Discussion": (" 1", " 2"), "SittingDown": ("", " 1")},
    "S11": {
        **{"Discussion": (" 1", " 2"), "Greeting": (" 2", ""), "Phoning": (" 3", " 2"), "SittingDown": ("", " 1")},
        **{"Smoking": (" 2", "")},
    },
}
"""The suffixes of sub-actions 1 and 2 where they are not " 1" and none, as in the real set."""

_SOUND_SUBACTION: Final = {
    **{("S9", "Greeting"): 1, ("S9", "SittingDown"): 1, ("S9", "Waiting"): 2, ("S11", "Directions"): 1},
}
"""The real set has known faults in the other sub-action of these, which readers skip or mend."""

# For each of the 32 raw joints, the landmark that fills it: Human3.6M repeats several, and adds toes and fingers.
_RAW32_FROM_LANDMARKS: Final = (
    *(0, 1, 2, 3, 17, 18, 4, 5, 6, 19, 20, 0, 7, 8, 9, 10),
    *(8, 11, 12, 13, 13, 21, 22, 22, 8, 14, 15, 16, 16, 23, 24, 24),
)


def file_action(action: str) -> str:
    """How an official action is written in file names."""
    return _FILE_NAMES.get(action, action)


def sequence_name(subject: str, action: str, subaction: int) -> str:
    """The stem of a sequence's files: action as in file names, sub-action 1 or 2."""
    suffixes = _IRREGULAR.get(subject, {}).get(action, (" 1", ""))
    return action + suffixes[subaction - 1]


def filmed_subaction(subject: str, action: str) -> int:
    """Which of the two sub-actions the studio films: it varies, and avoids those with known faults."""
    subject_number, action_number = SUBJECTS.index(subject), [file_action(a) for a in ACTION_NAMES].index(action)
    return _SOUND_SUBACTION.get((subject, action), 1 + (subject_number + action_number) % 2)


def film(settings: StudioSettings, subject: str, action: str) -> int:
    """Film one sequence with every camera and write its files; returns how many pictures that made."""
    root = settings.out / "h36m" / subject
    name = sequence_name(subject, action, filmed_subaction(subject, action))
    number = int(subject[1:])
    cameras = human36m_cameras(settings.seed, number, settings.frame_px, settings.lens_distortion)[: settings.cameras]
    pose_file = root / "MyPoseFeatures" / "D3_Positions" / f"{name}.cdf"
    videos = [root / "Videos" / f"{name}.{camera.name}.mp4" for camera in cameras]
    made = settings.frames * len(cameras)
    if all(path.is_file() for path in (pose_file, *videos)):
        return made
    take = _draw_take(settings, subject, action)
    for path in (pose_file, videos[0]):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(pose_file, _pose_file(take.landmarks))
    for camera_number, (camera, video) in enumerate(zip(cameras, videos, strict=True)):
        rng = np.random.default_rng([settings.seed, 11, number, _stable(action), camera_number])
        write_whole(video, _video_file(_pictures(rng, take, camera)))
    return made


def _draw_take(settings: StudioSettings, subject: str, action: str) -> Take:
    """Body, skin and hair are the subject's in every action; clothes and motion are drawn for each."""
    body = load_bodies()[subject]
    person = np.random.default_rng([settings.seed, 9, int(subject[1:])])
    rng = np.random.default_rng([settings.seed, 10, int(subject[1:]), _stable(action)])
    return stage(rng, body, draw_dress(rng, body, person), draw_clip(rng, action, settings.frames))


def _stable(text: str) -> int:
    """A number for a name that no process changes, unlike `hash`."""
    return int.from_bytes(text.encode(), "big") % (2**31 - 1)


def _pictures(rng: np.random.Generator, take: Take, camera: StudioCamera) -> list[np.ndarray]:
    """What a camera sees of a take, in a room of its own: uint8 RGB pictures."""
    backdrop = draw_backdrop(rng, camera, take.props)
    pictures = []
    for vertices in take.vertices:
        picture = backdrop.picture.copy()
        draw_person(picture, backdrop, camera, take.dress, take.body.faces, vertices)
        pictures.append(to_bytes(picture))
    return pictures


def _pose_file(landmarks: np.ndarray) -> bytes:
    """The 32 raw joints of a take as `Pose`, 1 x frames x 96 float32, in a CDF file."""
    poses = landmarks[:, _RAW32_FROM_LANDMARKS].reshape(1, len(landmarks), 96).astype(np.float32)
    variable = {
        **{"Variable": "Pose", "Data_Type": _CDF_FLOAT, "Num_Elements": 1},
        # Compressed variables carry the time of writing.
        **{"Rec_Vary": True, "Dim_Sizes": list(poses.shape[1:]), "Compress": 0},
    }
    # The library writes to paths alone.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pose.cdf"
        with CDF(path, cdf_spec={"Compressed": 0}) as file:
            file.write_globalattrs({"Source": {0: "synthetic: rendered by posecluster's studio, no real person"}})
            file.write_var(variable, var_data=poses)
        return path.read_bytes()


def _video_file(pictures: list[np.ndarray]) -> bytes:
    """Pictures as an H.264 video of high quality, 50 fps; the same bytes on every run."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        container.metadata["comment"] = "synthetic"
        options = {"crf": "14", "preset": "veryfast", "threads": "1"}
        track = container.add_stream("libx264", rate=Fraction(50), options=options)
        track.height, track.width = pictures[0].shape[:2]
        track.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(track.encode())
    return stream.getvalue()


def write_metadata(settings: StudioSettings) -> None:
    """`metadata.xml` with every camera of every subject, filmed or not."""
    root = ET.Element("metadata")
    root.append(ET.Comment(" Synthetic: written by posecluster's studio. No data of Human3.6M is in it. "))
    mapping = ET.SubElement(root, "mapping")
    _row(mapping, ["", "", *SUBJECTS])
    for index, action in enumerate(("_ALL", *ACTION_NAMES), start=1):
        for subaction in (1, 2):
            stems = [sequence_name(subject, file_action(action), subaction) for subject in SUBJECTS]
            _row(mapping, [str(index), str(subaction), *stems])
    names = ET.SubElement(root, "actionnames")
    for action in ("_ALL", *ACTION_NAMES):
        ET.SubElement(names, "act").text = action
    cameras = ET.SubElement(ET.SubElement(root, "dbcameras"), "index2id")
    for number, name in enumerate(CAMERA_NAMES, start=1):
        ET.SubElement(cameras, f"id{number}").text = name
    ET.SubElement(root, "w0").text = "[" + " ".join(f"{value:.10g}" for value in _w0(settings)) + "]"
    ET.indent(root)
    path = settings.out / "h36m" / "metadata.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _row(table: ET.Element, cells: list[str]) -> None:
    row = ET.SubElement(table, "tr")
    for cell in cells:
        ET.SubElement(row, "td").text = cell


def _w0(settings: StudioSettings) -> np.ndarray:
    """264 extrinsic numbers, then 36 intrinsic ones; see the top of this file."""
    sets = [human36m_cameras(settings.seed, n, settings.frame_px, settings.lens_distortion) for n in range(1, 12)]
    numbers = [np.r_[cameras[c].angles, cameras[c].position] for c in range(4) for cameras in sets]
    numbers += [np.r_[camera.intrinsics, camera.distortion] for camera in sets[0]]
    return np.concatenate(numbers)
