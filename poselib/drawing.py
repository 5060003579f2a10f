"""Skeletons over pictures and in space, and sheets of pictures."""

import math
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D

from poselib.skeleton import BONES, H36M_JOINTS, RIGHT_JOINTS, ROOT

Picture = UInt8[np.ndarray, "h w 3"]
"""RGB."""

RIGHT: Final = (213, 94, 0)
LEFT: Final = (86, 180, 233)
TRUNK: Final = (240, 228, 66)
"""RGB. Source: Okabe and Ito, "Color Universal Design", 2008: told apart with any colour vision."""

OUTLINE: Final = (20, 20, 20)
PAPER: Final = (255, 255, 255)
_SUBPIXEL_BITS = 4
_FARTHEST_PX = 1e5


def bone_color(child: int) -> tuple[int, int, int]:
    """RGB of the bone that ends in joint `child`: one colour for right limbs, one for left ones, one for the trunk."""
    if child in RIGHT_JOINTS:
        return RIGHT
    return LEFT if H36M_JOINTS[child].startswith("left_") else TRUNK


def draw_skeleton(
    image: Picture, joints_px: Float[np.ndarray, "j 2"], visible: Bool[np.ndarray, " j"] | None = None
) -> Picture:
    """A copy of the picture with the skeleton over it; lines grow with the picture.

    Args:
        image: RGB.
        joints_px: px of the picture, the centre of its first pixel at (0.5, 0.5).
        visible: joints to draw, with the bones between them; all by default. Joints that are not finite or very
            far away are left out.
    """
    image = np.ascontiguousarray(image).copy()
    joints_px = joints_px.astype(np.float64)
    drawn = np.isfinite(joints_px).all(axis=-1) & (np.abs(np.nan_to_num(joints_px)) < _FARTHEST_PX).all(axis=-1)
    if visible is not None:
        drawn &= visible
    # OpenCV counts from the centre of the first pixel.
    points = np.rint((np.where(drawn[:, None], joints_px, 0) - 0.5) * 2**_SUBPIXEL_BITS).astype(int).tolist()
    width = max(1, round(min(image.shape[:2]) / 90))
    bones = [(parent, child) for parent, child in BONES if drawn[parent] and drawn[child]]
    for parent, child in bones:
        _line(image, points[parent], points[child], OUTLINE, width + max(1, width // 2) * 2)
    for parent, child in bones:
        _line(image, points[parent], points[child], bone_color(child), width)
    for joint in np.flatnonzero(drawn):
        radius = int(0.4 * width * 2**_SUBPIXEL_BITS)
        cv2.circle(image, points[joint], radius, PAPER, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return image


def _line(image: np.ndarray, start: list[int], end: list[int], color: tuple[int, int, int], width: int) -> None:
    cv2.line(image, start, end, color, width, cv2.LINE_AA, _SUBPIXEL_BITS)


def plot_pose_3d(
    joints_mm: Float[np.ndarray, "j 3"],
    true_mm: Float[np.ndarray, "j 3"] | None = None,
    *,
    size_px: int = 400,
    azimuth_deg: float = -65.0,
    elevation_deg: float = 12.0,
    title: str = "",
) -> Picture:
    """A pose in space, upright, `size_px` square, RGB.

    Args:
        joints_mm: mm, camera frame, absolute or root-relative; drawn from its pelvis.
        true_mm: a second pose, drawn grey and dashed with its pelvis at the same place.
        size_px: side of the picture.
        azimuth_deg: where one looks from: -90 is the camera's own direction, more turns to its left.
        elevation_deg: how far above the horizon one looks from.
        title: one line over the picture.
    """
    poses = [_upright(pose) for pose in (joints_mm, true_mm) if pose is not None]
    dpi = 100
    figure = Figure(figsize=(size_px / dpi, size_px / dpi), dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 0.95 if title else 1.0), projection="3d")
    assert isinstance(axes, Axes3D)
    line = size_px / 150
    for pose in poses[1:]:
        for parent, child in BONES:
            axes.plot(*pose[[parent, child]].T, color="0.45", linestyle=(0, (2.5, 1.5)), linewidth=0.8 * line)
    for parent, child in BONES:
        # Light colours are lost on white: a darker line behind each bone holds them.
        for color, width in ((OUTLINE, 1.7 * line), (bone_color(child), line)):
            rgb = tuple(channel / 255 for channel in color)
            axes.plot(*poses[0][[parent, child]].T, color=rgb, linewidth=width, solid_capstyle="round")
    _cubic_axes(axes, np.concatenate(poses))
    axes.view_init(elev=elevation_deg, azim=azimuth_deg)
    if title:
        figure.suptitle(title, y=0.99, fontsize=size_px / 40)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _upright(joints_mm: np.ndarray) -> np.ndarray:
    """Camera frame (x right, y down, z away) to the plot's (x right, y away, z up), in metres from the pelvis."""
    x, y, z = (joints_mm - joints_mm[ROOT]).T / 1000
    return np.stack([x, z, -y], axis=-1)


def _cubic_axes(axes: Axes3D, points: np.ndarray) -> None:
    """The same scale along all three axes, with everything inside, and quiet walls."""
    points = points[np.isfinite(points).all(axis=-1)]
    low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(3), np.zeros(3))
    half = max(0.5, float((high - low).max()) / 2 * 1.05)
    limits = [(centre - half, centre + half) for centre in (low + high) / 2]
    axes.set(xlim=limits[0], ylim=limits[1], zlim=limits[2])
    axes.set_box_aspect((1, 1, 1), zoom=1.45)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_ticks(np.arange(math.ceil(axis.get_view_interval()[0] * 2), axis.get_view_interval()[1] * 2) / 2)
        axis.set_ticklabels([])
        axis.set_pane_color((0.96, 0.96, 0.96, 1.0))


def contact_sheet(images: Sequence[UInt8[np.ndarray, "_ _ 3"]], columns: int, captions: Sequence[str] = ()) -> Picture:
    """Pictures in rows of `columns`, in cells of the largest one's size, each with its caption below.

    Args:
        images: RGB, any sizes.
        columns: pictures per row.
        captions: none, or one for each picture, of one line or several; ASCII.

    Raises:
        ValueError: no pictures, fewer than one column, or captions that are not as many as the pictures.
    """
    if not images or columns < 1 or (captions and len(captions) != len(images)):
        raise ValueError(f"{len(images)} pictures in {columns} columns with {len(captions)} captions make no sheet")
    gap = 6
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    line = max(14, height // 14)
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    step_y, step_x = height + lines * line + gap, width + gap
    sheet = np.full((rows * step_y + gap, columns * step_x + gap, 3), PAPER, dtype=np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * step_y + gap, place % columns * step_x + gap
        y, x = top + (height - image.shape[0]) // 2, left + (width - image.shape[1]) // 2
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
        for number, text in enumerate(captions[place].splitlines() if captions else ()):
            strip = top + height + number * line
            _write(sheet[strip : strip + line, left : left + width], text)
    return sheet


def _write(strip: np.ndarray, text: str) -> None:
    """Black text into a strip of a picture, as large as fits."""
    height, width = strip.shape[:2]
    (text_width, text_height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(0.85 * height / (text_height + below), 0.96 * width / max(text_width, 1))
    origin = (0, round(height / 2 + text_height * scale / 2))
    cv2.putText(strip, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, OUTLINE, 1, cv2.LINE_AA)
