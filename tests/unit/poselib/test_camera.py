import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from poselib import camera

pytestmark = pytest.mark.unit

# Camera 54138969 of Human3.6M: fx fy cx cy, and k1 k2 k3 p1 p2.
INTRINSICS = np.array([1145.05, 1143.78, 512.54, 515.45])
LENS = np.array([-0.2071, 0.2478, -0.0031, -0.0009755, -0.0014244])


def people(seed: int = 0, shape: tuple[int, ...] = (5, 17)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform([-1500, -1500, 3500], [1500, 1500, 6000], (*shape, 3))


@pytest.mark.parametrize("lens", [None, LENS])
def test_projects_as_opencv(lens: np.ndarray | None) -> None:
    points = people()
    matrix = np.array([[INTRINSICS[0], 0, INTRINSICS[2]], [0, INTRINSICS[1], INTRINSICS[3]], [0, 0, 1]])
    k1, k2, k3, p1, p2 = np.zeros(5) if lens is None else lens
    expected, _ = cv2.projectPoints(
        points.reshape(-1, 3), np.zeros(3), np.zeros(3), matrix, np.array([k1, k2, p1, p2, k3])
    )
    np.testing.assert_allclose(camera.project(points, INTRINSICS, lens).reshape(-1, 2), expected[:, 0], atol=1e-6)


@pytest.mark.parametrize("lens", [None, LENS])
def test_back_projection_inverts_projection(lens: np.ndarray | None) -> None:
    points = people()
    pixels = camera.project(points, INTRINSICS, lens)
    np.testing.assert_allclose(camera.back_project(pixels, points[..., 2], INTRINSICS, lens), points, atol=1e-3)


def test_each_sample_has_its_own_camera() -> None:
    points = people(shape=(2, 17))
    intrinsics, lens = np.stack([INTRINSICS, INTRINSICS / 2]), np.stack([LENS, np.zeros(5)])
    both = camera.project(points, intrinsics, lens)
    for i in range(2):
        np.testing.assert_allclose(both[i], camera.project(points[i], intrinsics[i], lens[i]))


def test_world_and_camera_frames() -> None:
    rotation, position = Rotation.from_rotvec([0.3, -1.2, 0.5]).as_matrix(), np.array([1000.0, -2000.0, 1500.0])
    points = people()
    in_camera = camera.world_to_camera(points, rotation, position)
    np.testing.assert_allclose(in_camera[2, 3], rotation @ (points[2, 3] - position))
    np.testing.assert_allclose(camera.camera_to_world(in_camera, rotation, position), points)


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_affine_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(0, 1, (2, 3, 2, 3)) + np.eye(2, 3) * 3
    points = rng.normal(0, 100, (3, 17, 2))
    composed = camera.apply_affine(camera.compose_affine(second, first), points)
    np.testing.assert_allclose(composed, camera.apply_affine(second, camera.apply_affine(first, points)), atol=1e-9)
    back = camera.apply_affine(camera.invert_affine(first), camera.apply_affine(first, points))
    np.testing.assert_allclose(back, points, atol=1e-6)


def test_root_box_spans_two_metres_at_the_pelvis() -> None:
    root = np.array([[300.0, -200.0, 4500.0]])
    x, y, w, h = camera.root_box(root, INTRINSICS)[0]
    left_top, right_bottom = camera.project(root + np.array([[-1000, -1000, 0], [1000, 1000, 0]]), INTRINSICS)
    np.testing.assert_allclose([x, y], left_top)
    np.testing.assert_allclose([x + w, y + h], right_bottom)


def test_tight_box_and_aspect() -> None:
    joints = np.array([[10.0, 20.0], [50.0, 100.0], [30.0, 60.0]])
    box = camera.tight_box(joints)
    np.testing.assert_allclose(box, [5, 10, 50, 100])
    np.testing.assert_allclose(camera.fit_aspect(box, 0.75), [30 - 37.5, 10, 75, 100])
    np.testing.assert_allclose(camera.fit_aspect(box, 0.25), [5, 60 - 100, 50, 200])


def test_a_crop_covers_its_box() -> None:
    matrix = camera.crop_from_box(np.array([10.0, 20.0, 40.0, 80.0]), 64, 96)
    np.testing.assert_allclose(camera.apply_affine(matrix, np.array([[10.0, 20.0], [50.0, 100.0]])), [[0, 0], [64, 96]])


@pytest.mark.parametrize(
    "call",
    [
        lambda kind, p: camera.project(kind(p), kind(INTRINSICS), kind(LENS)),
        lambda kind, p: camera.back_project(kind(p[..., :2]), kind(p[..., 2]), kind(INTRINSICS), kind(LENS * 0.01)),
        lambda kind, p: camera.root_box(kind(p[:, 0]), kind(INTRINSICS), kind(LENS)),
        lambda kind, p: camera.fit_aspect(camera.tight_box(kind(p[..., :2])), 0.75),
        lambda kind, p: camera.invert_affine(camera.crop_from_box(camera.tight_box(kind(p[..., :2])), 64, 96)),
    ],
)
def test_torch_and_numpy_alike(call) -> None:
    points = people()
    of_torch = call(torch.from_numpy, points)
    assert isinstance(of_torch, torch.Tensor)
    np.testing.assert_allclose(of_torch.numpy(), call(np.asarray, points), rtol=1e-12)
