"""Write single people in MPII Human Pose's official raw layout.

    images/000000001.jpg
    mpii_human_pose_v1_u12_1.mat   RELEASE: annolist, img_train, single_person

Joints are 1-based and refer to the centres of pixels, so that x_mat = x + 0.5 for our x. As in the real set, some
pictures carry no joints, joints beyond the picture are missing, and `is_visible` is empty for neck and head top.
"""

import io
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from scipy.io import savemat

from poselib.skeleton import MPII_JOINTS
from shards.atomic import write_whole
from shards.settings import StudioSettings
from shards.studio.body import BONES, load_bodies
from shards.studio.cameras import StudioCamera, still_camera
from shards.studio.clothes import draw_dress
from shards.studio.motion import ACTIONS, draw_clip
from shards.studio.render import draw_person, to_bytes
from shards.studio.scene import draw_backdrop
from shards.studio.staging import Take, stage

ANNOTATIONS: Final = "mpii_human_pose_v1_u12_1.mat"
_LANDMARKS: Final = (3, 2, 1, 4, 5, 6, 0, 8, 9, 10, 16, 15, 14, 11, 12, 13)
_UPPER_NECK: Final = MPII_JOINTS.index("upper_neck")
_UNSAID_VISIBILITY: Final = ("upper_neck", "head_top")
_TEST_SHARE: Final = 0.08
_WITHOUT_JOINTS: Final = 0.03
_QUALITY: Final = 92
_HEADER: Final = b"MATLAB 5.0 MAT-file, synthetic: made by posecluster's studio".ljust(116)
"""What the annotation file begins with; the library would write the time of day."""


@dataclass(frozen=True, eq=False)
class Still:
    """One picture before it is drawn."""

    take: Take
    camera: StudioCamera
    test: bool
    without_joints: bool
    rng: np.random.Generator

    @property
    def joints_px(self) -> np.ndarray:
        """MPII's joints `16 2` px."""
        points = self.take.landmarks[0]
        joints = points[list(_LANDMARKS)]
        # The upper neck lies between the base of the neck and the face.
        joints[_UPPER_NECK] = 0.45 * points[8] + 0.55 * points[9]
        return self.camera.see(joints)[0]


def picture_name(number: int) -> str:
    """The file name of a picture, counted from 0."""
    return f"{number + 1:09d}.jpg"


def draw_still(settings: StudioSettings, number: int) -> Still:
    """Draw person, pose and camera of one picture; the same on every call."""
    rng = np.random.default_rng([settings.seed, 20, number])
    names = sorted(load_bodies())
    body = load_bodies()[names[rng.integers(len(names))]]
    action = ACTIONS[rng.integers(len(ACTIONS))]
    take = stage(rng, body, draw_dress(rng, body, rng), draw_clip(rng, action, 1))
    points = take.landmarks[0]
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    camera = still_camera(rng, middle, float(np.ptp(points, axis=0).max()), (0.4, 0.92))
    test, without = rng.random() < _TEST_SHARE, rng.random() < _WITHOUT_JOINTS
    return Still(take, camera, bool(test), bool(without), rng)


def write_picture(settings: StudioSettings, number: int) -> None:
    """Draw one picture and write it, unless it is there."""
    path = settings.out / "mpii" / "images" / picture_name(number)
    if path.is_file():
        return
    still = draw_still(settings, number)
    backdrop = draw_backdrop(still.rng, still.camera, still.take.props)
    picture = backdrop.picture.copy()
    draw_person(picture, backdrop, still.camera, still.take.dress, still.take.body.faces, still.take.vertices[0])
    _, data = cv2.imencode(".jpg", to_bytes(picture)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data.tobytes())


def write_annotations(settings: StudioSettings) -> None:
    """The annotation file of all pictures."""
    stills = [draw_still(settings, number) for number in range(settings.mpii_pictures)]
    fields = ("image", "annorect", "frame_sec", "vididx")
    annotations = np.empty((1, len(stills)), dtype=[(field, object) for field in fields])
    people = np.empty((len(stills), 1), dtype=object)
    for number, still in enumerate(stills):
        rectangle = _rectangle(still)
        annotations[0, number] = ({"name": picture_name(number)}, rectangle, np.zeros((0, 0)), np.zeros((0, 0)))
        people[number, 0] = np.array([[1.0]])
    release = {
        "annolist": annotations,
        "img_train": np.array([[0.0 if still.test else 1.0 for still in stills]]),
        "version": "synthetic",
        "single_person": people,
    }
    stream = io.BytesIO()
    savemat(stream, {"RELEASE": release}, do_compression=True, oned_as="row")
    write_whole(settings.out / "mpii" / ANNOTATIONS, _HEADER + stream.getvalue()[len(_HEADER) :])


def _rectangle(still: Still) -> dict[str, Any]:
    """`annorect` of the one person of a picture."""
    joints, head = still.joints_px, _head_box(still)
    place = {
        "scale": float(max(np.ptp(joints, axis=0)) * 1.15 / 200),
        "objpos": {"x": float(np.round(joints[:, 0].mean())), "y": float(np.round(joints[:, 1].mean()))},
    }
    # Test pictures of the real set say where a person is, and no more.
    if still.test:
        return place
    box = dict(zip(("x1", "y1", "x2", "y2"), head, strict=True))
    return box | place | {"annopoints": np.zeros((0, 0)) if still.without_joints else {"point": _points(still, joints)}}


def _points(still: Still, joints: np.ndarray) -> np.ndarray:
    """The joints inside the picture as a struct array of x, y, id, is_visible."""
    size = np.array([still.camera.width, still.camera.height])
    inside = [n for n in range(len(joints)) if (joints[n] >= 0).all() and (joints[n] < size).all()]
    points = np.empty((1, len(inside)), dtype=[(field, object) for field in ("x", "y", "id", "is_visible")])
    for column, joint in enumerate(inside):
        x, y = (float(value) + 0.5 for value in joints[joint])
        visible = np.zeros((0, 0)) if MPII_JOINTS[joint] in _UNSAID_VISIBILITY else 1
        points[0, column] = (x, y, joint, visible)
    return points


def _head_box(still: Still) -> list[float]:
    """x1 y1 x2 y2 of the head in the file's pixels."""
    on_head = still.take.body.skin[:, BONES.index("head")] > 0.6
    points, _ = still.camera.see(still.take.vertices[0][on_head])
    return [float(value) for value in np.round(np.r_[points.min(axis=0), points.max(axis=0)] + 0.5)]
