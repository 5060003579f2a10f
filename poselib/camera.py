"""Pinhole cameras, Brown lenses, boxes and crops, for NumPy arrays and torch tensors alike.

Pixel coordinates are continuous: a picture of width W and height H covers [0, W] x [0, H], and the centre of its
first pixel is (0.5, 0.5). Camera frames have x to the right, y down and z into the scene, in millimetres.

Shapes are written `... j 3`: any leading axes, then joints, then coordinates.
"""

from typing import Any

from array_api_compat import array_namespace

Array = Any
"""A NumPy array or a torch tensor; every function returns the kind it was given."""


def world_to_camera(points_mm: Array, rotation: Array, position_mm: Array) -> Array:
    """World to camera frame, X_cam = R (X - T): `... j 3` mm, `3 3`, camera centre `3` mm in the world frame."""
    return (points_mm - position_mm) @ rotation.T


def camera_to_world(points_mm: Array, rotation: Array, position_mm: Array) -> Array:
    """Camera to world frame, X = R^T X_cam + T: the inverse of `world_to_camera`."""
    return points_mm @ rotation + position_mm


def distort(points: Array, distortion: Array) -> Array:
    """Brown-Conrady lens on normalised image coordinates.

    Args:
        points: `... j 2`, x/z and y/z in the camera frame.
        distortion: `... 5`, k1 k2 k3 p1 p2 (Human3.6M's order: radial first; OpenCV's is k1 k2 p1 p2 k3).

    Source: Brown, "Decentering distortion of lenses", 1966, in OpenCV's form.
    """
    xp = array_namespace(points)
    k1, k2, k3, p1, p2 = (distortion[..., i, None] for i in range(5))
    x, y = points[..., 0], points[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    tangential = 2 * (p1 * y + p2 * x)
    return xp.stack([x * (radial + tangential) + p2 * r2, y * (radial + tangential) + p1 * r2], axis=-1)


def undistort(points: Array, distortion: Array, iterations: int = 20) -> Array:
    """The inverse of `distort` by fixed-point iteration: `... j 2` normalised, `... 5`.

    Converges for lenses whose distortion grows with the radius over the picture, as Human3.6M's does.
    """
    guess = points
    for _ in range(iterations):
        guess = guess + points - distort(guess, distortion)
    return guess


def project(points_mm: Array, intrinsics: Array, distortion: Array | None = None) -> Array:
    """Camera frame to pixels.

    Args:
        points_mm: `... j 3` mm, camera frame, z > 0.
        intrinsics: `... 4`, fx fy cx cy in px.
        distortion: `... 5` as in `distort`, or None for a pinhole.

    Returns:
        `... j 2` px.
    """
    normalised = points_mm[..., :2] / points_mm[..., 2:]
    if distortion is not None:
        normalised = distort(normalised, distortion)
    return normalised * intrinsics[..., None, :2] + intrinsics[..., None, 2:]


def back_project(points_px: Array, depth_mm: Array, intrinsics: Array, distortion: Array | None = None) -> Array:
    """Pixels and depths to the camera frame, the inverse of `project`.

    Args:
        points_px: `... j 2` px.
        depth_mm: `... j` mm, z in the camera frame.
        intrinsics: `... 4`, fx fy cx cy in px.
        distortion: `... 5` as in `distort`, or None for a pinhole.

    Returns:
        `... j 3` mm, camera frame.
    """
    xp = array_namespace(points_px)
    normalised = (points_px - intrinsics[..., None, 2:]) / intrinsics[..., None, :2]
    if distortion is not None:
        normalised = undistort(normalised, distortion)
    return xp.concat([normalised * depth_mm[..., None], depth_mm[..., None]], axis=-1)


def apply_affine(matrix: Array, points: Array) -> Array:
    """Apply affine maps `... 2 3` to points `... j 2`."""
    xp = array_namespace(points)
    linear = xp.matrix_transpose(matrix[..., :, :2])
    return points @ linear + matrix[..., None, :, 2]


def invert_affine(matrix: Array) -> Array:
    """Inverses of affine maps `... 2 3`."""
    xp = array_namespace(matrix)
    a, b, c, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 0], matrix[..., 1, 1]
    tx, ty = matrix[..., 0, 2], matrix[..., 1, 2]
    det = a * d - b * c
    top = xp.stack([d, -b, b * ty - d * tx], axis=-1)
    bottom = xp.stack([-c, a, c * tx - a * ty], axis=-1)
    return xp.stack([top, bottom], axis=-2) / det[..., None, None]


def compose_affine(outer: Array, inner: Array) -> Array:
    """The affine map `... 2 3` that applies `inner` first, then `outer`."""
    xp = array_namespace(outer)
    linear = outer[..., :, :2] @ inner[..., :, :2]
    offset = (outer[..., :, :2] @ inner[..., :, 2:]) + outer[..., :, 2:]
    return xp.concat([linear, offset], axis=-1)


def root_box(root_mm: Array, intrinsics: Array, distortion: Array | None = None, size_mm: float = 2000.0) -> Array:
    """The `root2000` box: a square of `size_mm` at the pelvis' depth, centred on the pelvis, projected.

    Args:
        root_mm: `... 3` mm, pelvis in the camera frame.
        intrinsics: `... 4`, fx fy cx cy in px.
        distortion: `... 5` as in `distort`, or None for a pinhole; moves the centre alone.

    Returns:
        `... 4`: x y w h in px, x y the upper left corner. Source: Sun et al., "Integral Human Pose Regression", 2018.
    """
    xp = array_namespace(root_mm)
    centre = project(root_mm[..., None, :], intrinsics, distortion)[..., 0, :]
    size = intrinsics[..., :2] * size_mm / root_mm[..., 2:]
    return xp.concat([centre - size / 2, size], axis=-1)


def tight_box(joints_px: Array, scale: float = 1.25) -> Array:
    """The box around joints `... j 2` px, enlarged by `scale` about its centre: x y w h in px, `... 4`."""
    xp = array_namespace(joints_px)
    low, high = xp.min(joints_px, axis=-2), xp.max(joints_px, axis=-2)
    size = (high - low) * scale
    return xp.concat([(low + high - size) / 2, size], axis=-1)


def fit_aspect(box: Array, aspect: float) -> Array:
    """Widen boxes `... 4` (x y w h, px) about their centres until w / h equals `aspect`; nothing is cut off."""
    xp = array_namespace(box)
    centre, size = box[..., :2] + box[..., 2:] / 2, box[..., 2:]
    width = xp.maximum(size[..., 0], size[..., 1] * aspect)
    size = xp.stack([width, width / aspect], axis=-1)
    return xp.concat([centre - size / 2, size], axis=-1)


def crop_from_box(box: Array, width: int, height: int) -> Array:
    """The affine maps `... 2 3` that take boxes `... 4` (x y w h, px) onto a crop of `width` x `height` px."""
    xp = array_namespace(box)
    sx, sy = width / box[..., 2], height / box[..., 3]
    zero = xp.zeros_like(sx)
    top = xp.stack([sx, zero, -sx * box[..., 0]], axis=-1)
    bottom = xp.stack([zero, sy, -sy * box[..., 1]], axis=-1)
    return xp.stack([top, bottom], axis=-2)
