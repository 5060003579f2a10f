"""A sheet of training crops as the network gets them, with what it is trained towards drawn over them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from matplotlib import colormaps

from poselib.drawing import OUTLINE, PAPER, Picture, contact_sheet, draw_skeleton
from poselib.settings import ModelSettings
from poselib.skeleton import mirror_permutation
from poselib.volume import to_crop_px
from shards.atomic import write_whole
from shards.loader import Batch, Source
from shards.sample import unpack

COLUMNS: Final = 6
SHORTER_SIDE_PX: Final = 288
DEPTH_SHOWN: Final = 0.2
"""Depth in volume units at which the colours of the joints end."""

UNSUPERVISED: Final = (140, 140, 140)
_DEPTH = colormaps["plasma"]
_MIRROR = mirror_permutation()
_SUBPIXEL_BITS = 4
_LEGEND = (
    "discs: joints trained in x, y and z, bright in front of the pelvis, dark behind; rings: in x and y alone;"
    " grey rings: not trained; orange: the right side"
)


def write_sheet(path: Path, batch: Batch, sources: Sequence[Source], model: ModelSettings) -> None:
    """Write the sheet of a batch (see `draw_sheet`) as .jpg or .png, whole or not at all; makes the folder."""
    ok, data = cv2.imencode(path.suffix.lower(), draw_sheet(batch, sources, model)[..., ::-1])
    if not ok:
        raise ValueError(f"OpenCV could not encode {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data.tobytes())


def draw_sheet(batch: Batch, sources: Sequence[Source], model: ModelSettings) -> Picture:
    """The crops of a batch with their targets, each above its name and what was done to it.

    Args:
        batch: as the training gets it.
        sources: what its draws count into.
        model: size of the crops.
    """
    places = range(len(batch.draws.sample))
    sheet = contact_sheet(
        [_draw(batch, place, model) for place in places],
        COLUMNS,
        [f"{_name(batch, place, sources)}\n{describe(batch, place)}" for place in places],
    )
    line = max(24, sheet.shape[0] // 50)
    legend = np.full((line + 8, sheet.shape[1], 3), PAPER, np.uint8)
    (width, height), _ = cv2.getTextSize(_LEGEND, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(0.6 * line / height, (sheet.shape[1] - 12) / width)
    cv2.putText(legend, _LEGEND, (6, line), cv2.FONT_HERSHEY_SIMPLEX, scale, OUTLINE, 1, cv2.LINE_AA)
    return np.concatenate([sheet, legend])


def describe(batch: Batch, place: int) -> str:
    """What augmentation did to a sample of a batch, in one line."""
    plan = batch.plan
    gains = plan.gains[place]
    objects = int(plan.occlusions.count[place])
    words = [
        f"pass {batch.draws.turn[place]}" if batch.draws.turn[place] else "",
        "mirrored" if plan.mirrored[place] else "",
        f"x{plan.zoom[place]:.2f}" if plan.zoom[place] != 1 else "",
        f"{np.rad2deg(plan.angle[place]):+.0f} deg" if plan.angle[place] else "",
        "rgb " + " ".join(f"{gain:.2f}" for gain in gains) if np.any(gains != 1) else "",
        f"{objects} object{'s' if objects > 1 else ''}" if objects else "",
    ]
    return ", ".join(word for word in words if word) or "as stored"


def _name(batch: Batch, place: int, sources: Sequence[Source]) -> str:
    source = sources[batch.draws.source[place]]
    names = source.shards.read(int(source.rows[batch.draws.sample[place]])).names
    if not names.subject:
        return f"{names.source} {Path(names.picture).name}"
    return f"{names.source} {names.subject} {names.action} {names.subaction} {names.camera} {names.frame}"


def _draw(batch: Batch, place: int, model: ModelSettings) -> Picture:
    """A crop after its colour gain, enlarged, with its skeleton."""
    crop = batch.pictures[place].cpu().numpy() * batch.plan.gains[place]
    scale = max(1.0, SHORTER_SIDE_PX / min(crop.shape[:2]))
    crop = np.rint(np.clip(crop, 0, 255)).astype(np.uint8)
    picture = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    targets, weights = batch.plan.targets[place].astype(np.float64), batch.plan.weights[place]
    joints_px = to_crop_px(targets, model) * scale
    picture = draw_skeleton(picture, joints_px, (weights[:, :2] > 0).all(-1))
    known = (
        unpack(batch.plan.vectors[place])["supervised_px"][_MIRROR if batch.plan.mirrored[place] else slice(None)] > 0
    )
    for joint in np.flatnonzero(known):
        _mark(picture, joints_px[joint], targets[joint, 2], weights[joint])
    return picture


def _mark(picture: Picture, at_px: np.ndarray, depth: float, weight: np.ndarray) -> None:
    """A joint: a disc of its depth's colour, a ring without depth, a grey ring where nothing is trained."""
    if np.abs(at_px).max() > 1e4:
        return
    centre = np.rint((at_px - 0.5) * 2**_SUBPIXEL_BITS).astype(int).tolist()
    radius = max(3.0, min(picture.shape[:2]) / 70) * 2**_SUBPIXEL_BITS

    def disc(share: float, color: tuple[int, ...], thickness: int = -1) -> None:
        cv2.circle(picture, centre, round(radius * share), color, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    if weight[2] > 0 and weight[0] > 0:
        red, green, blue, _ = _DEPTH(0.5 - depth / DEPTH_SHOWN / 2)
        disc(1.3, OUTLINE)
        disc(1.0, tuple(round(255 * value) for value in (red, green, blue)))
    else:
        color = PAPER if weight[0] > 0 else UNSUPERVISED
        disc(1.2, OUTLINE, 3)
        disc(1.2, color, 2)
