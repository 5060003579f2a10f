"""The studio's cameras: four like Human3.6M's around the scene, and single ones for still pictures.

World: millimetres, z up, the floor at z = 0. Cameras follow `poselib.camera`: X_cam = R (X - T), x to the right, y
down, z into the scene, and the centre of the first pixel at (0.5, 0.5).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from poselib.camera import project, undistort, world_to_camera

CAMERA_NAMES: Final = ("54138969", "55011271", "58860488", "60457274")
_HEIGHTS: Final = (1002, 1000, 1000, 1002)
_REAL_WIDTH: Final = 1000


@dataclass(frozen=True, eq=False)
class StudioCamera:
    """One camera.

    Attributes:
        name: as in file names.
        width: of its pictures, px.
        height: of its pictures, px.
        intrinsics: `4`, fx fy cx cy in px.
        distortion: `5`, k1 k2 k3 p1 p2.
        angles: `3`, Euler angles in radians whose matrix is `rotation_matrix(angles)`.
        position: `3` mm, world.
    """

    name: str
    width: int
    height: int
    intrinsics: np.ndarray
    distortion: np.ndarray
    angles: np.ndarray
    position: np.ndarray

    @property
    def rotation(self) -> np.ndarray:
        """World to camera, `3 3`."""
        return rotation_matrix(self.angles)

    def see(self, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points `... j 3` mm to pixels `... j 2` and depths `... j` mm."""
        local = world_to_camera(points_mm, self.rotation, self.position)
        return project(local, self.intrinsics, self.distortion), local[..., 2]


def rotation_matrix(angles: np.ndarray) -> np.ndarray:
    """R = Rx Ry Rz `3 3` from three angles in radians, each a right-handed rotation: Human3.6M's metadata's order."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def euler_angles(rotation: np.ndarray) -> np.ndarray:
    """The inverse of `rotation_matrix`."""
    x = np.arctan2(-rotation[1, 2], rotation[2, 2])
    y = np.arcsin(np.clip(rotation[0, 2], -1, 1))
    return np.array([x, y, np.arctan2(-rotation[0, 1], rotation[0, 0])])


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """World-to-camera rotation `3 3` of a camera at `position` that looks at `target`, rolled by radians."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    return np.stack([cos * right + sin * down, cos * down - sin * right, forward])


def human36m_cameras(seed: int, subject: int, frame_px: int, distorting: bool) -> tuple[StudioCamera, ...]:
    """The four cameras for a subject (1 to 11): the lenses are shared by all subjects, the places differ a little.

    At `frame_px` = 1000 the frames are 1000 x 1002 or 1000 x 1000 px as the real ones; smaller ones scale with it,
    rounded up to even numbers, which videos need.
    """
    lenses = np.random.default_rng([seed, 1])
    places = np.random.default_rng([seed, 2, subject])
    scale = frame_px / _REAL_WIDTH
    cameras = []
    for number, (name, height) in enumerate(zip(CAMERA_NAMES, _HEIGHTS, strict=True)):
        focal = 1145 + lenses.uniform(-4, 4, 2)
        centre = np.array([_REAL_WIDTH, height]) / 2 + lenses.uniform(-12, 12, 2)
        bends = np.array([-0.21, 0.25, -0.003, -0.001, -0.0014]) * lenses.uniform(0.9, 1.1, 5)
        bearing = np.pi / 4 + number * np.pi / 2 + places.normal(0, 0.06)
        distance, high = 5500 + places.normal(0, 150), 1500 + places.normal(0, 60)
        position = np.array([distance * np.cos(bearing), distance * np.sin(bearing), high])
        target = np.array([0, 0, 900.0]) + places.normal(0, 60, 3)
        cameras.append(
            StudioCamera(
                name=name,
                width=_even(frame_px),
                height=_even(height * scale),
                intrinsics=np.concatenate([focal, centre]) * scale,
                distortion=bends if distorting else np.zeros(5),
                angles=euler_angles(look_at(position, target, places.normal(0, 0.01))),
                position=position,
            )
        )
    return tuple(cameras)


def _even(length: float) -> int:
    """The next even number of pixels."""
    return 2 * int(np.ceil(length / 2))


def rays(camera: StudioCamera) -> np.ndarray:
    """Through the centre of each pixel, undistorted: `h w 2` float32, x/z and y/z in the camera frame."""
    return _rays(camera.width, camera.height, tuple(camera.intrinsics), tuple(camera.distortion))


@lru_cache(maxsize=4)
def _rays(width: int, height: int, intrinsics: tuple[float, ...], distortion: tuple[float, ...]) -> np.ndarray:
    """As `rays`; the four Human3.6M lenses are asked for again and again."""
    fx, fy, cx, cy = intrinsics
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5 - cx)) / np.float32(fx)
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5 - cy)) / np.float32(fy)
    grid = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), axis=-1)
    if any(distortion):
        grid = undistort(grid, np.array(distortion, np.float32), iterations=8)
    return np.ascontiguousarray(grid, dtype=np.float32)


def still_camera(
    rng: np.random.Generator, target: np.ndarray, tall_mm: float, filled: tuple[float, float]
) -> StudioCamera:
    """Draw a hand-held camera that looks at `target` (3, mm, world).

    Something `tall_mm` tall there fills a share of the picture's height drawn from `filled`. No lens distortion.
    """
    width, height = (int(side) for side in rng.integers(320, 641, 2))
    focal = rng.uniform(0.8, 1.9) * max(width, height)
    distance = tall_mm * focal / (rng.uniform(*filled) * height)
    bearing, high = rng.uniform(0, 2 * np.pi), np.clip(rng.normal(1400, 450), 250, 2600)
    position = np.array([target[0] + distance * np.cos(bearing), target[1] + distance * np.sin(bearing), high])
    aim = target + rng.normal(0, 0.07 * tall_mm, 3)
    centre = np.array([width, height]) / 2
    return StudioCamera(
        name="still",
        width=width,
        height=height,
        intrinsics=np.array([focal, focal, *centre]),
        distortion=np.zeros(5),
        angles=euler_angles(look_at(position, aim, rng.normal(0, 0.05))),
        position=position,
    )
