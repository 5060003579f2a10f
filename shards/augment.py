"""The plan of a micro-batch: where each crop looks, what is pasted over it, what its colours and targets become.

Every draw comes from a counter-based generator keyed by (seed, source, pass, sample), and each kind of augmentation has
its own places among a sample's draws; new kinds take new places behind the old ones. So a sample's augmentation does
not depend on its batch, its rank, a restart, or on which other augmentations are switched on. Pure NumPy, no pictures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poselib.camera import apply_affine, compose_affine, crop_from_box, fit_aspect, invert_affine
from poselib.errors import InputError
from poselib.settings import ModelSettings
from poselib.skeleton import mirror_permutation
from poselib.volume import encode
from shards.loader_settings import PRESETS, AugmentSettings, CropSettings
from shards.occlude import OCCLUDER_DRAWS, Bank, Occlusions, draw_occlusions
from shards.order import Draws
from shards.sample import unpack

NO_AUGMENTATION = PRESETS["none"]
_MIRROR = mirror_permutation()

# Places of a sample's uniform numbers.
_FLIP, _GAINS, _ZOOM, _TURNS, _ANGLE, _RECOLOURS, _ZOOMS = 0, slice(1, 4), 4, 5, 6, 7, 8
_OCCLUDERS = slice(9, 9 + OCCLUDER_DRAWS)
_DRAWS = _OCCLUDERS.stop


@dataclass(frozen=True, eq=False)
class Plan:
    """What becomes of `b` stored samples.

    Attributes:
        stored_from_crop: float32 `b 2 3`, takes crop pixels to pixels of the stored picture; mirroring is in it.
        gains: float32 `b 3`, factor of each colour channel.
        zoom: float32 `b`, how much larger the person is in the crop than without augmentation.
        angle: float32 `b`, how far the crop's content is turned, rad, clockwise before mirroring.
        mirrored: bool `b`.
        occlusions: what is pasted over the crops, in crop pixels: neither mirrored nor zoomed nor turned.
        targets: float32 `b 17 3`, u v z of the volume, left and right swapped where mirrored.
        weights: float32 `b 17 3`, 0 where a coordinate is not supervised.
        vectors: float32 `b n`, the samples' numbers, see `shards.sample.NUMERIC`.
    """

    stored_from_crop: np.ndarray
    gains: np.ndarray
    zoom: np.ndarray
    angle: np.ndarray
    mirrored: np.ndarray
    occlusions: Occlusions
    targets: np.ndarray
    weights: np.ndarray
    vectors: np.ndarray


def plan(
    vectors: np.ndarray,
    draws: Draws,
    augment: Sequence[AugmentSettings],
    crop: CropSettings,
    model: ModelSettings,
    seed: int,
    bank: Bank | None = None,
) -> Plan:
    """The plan for stored samples.

    Args:
        vectors: float32 `b n`, the samples' numbers.
        draws: where the samples stand in the order; keys their random numbers.
        augment: settings of each source.
        crop: how crops are cut.
        model: the crop's size and the volume.
        seed: of the run.
        bank: objects to paste, where the settings ask for them.

    Raises:
        InputError: objects are asked for, and there is no bank.
    """
    arrays = unpack(vectors)
    uniform = _uniform(draws, seed)
    settings = [augment[source] for source in draws.source]
    mirrored, gains, zoom, angle = _draw(uniform, settings)
    crop_from_stored = compose_affine(
        turn_matrices(zoom, angle, model), crop_matrices(arrays["box"].astype(np.float64), crop, model)
    )
    crop_from_stored[mirrored] = compose_affine(mirror_matrix(model.crop_width), crop_from_stored[mirrored])
    joints = np.arange(len(mirrored))[:, None], np.where(mirrored[:, None], _MIRROR, np.arange(len(_MIRROR)))
    targets, weights = encode(
        apply_affine(crop_from_stored, arrays["joints_px"][joints]),
        arrays["joints_mm"][joints],
        arrays["supervised_px"][joints],
        arrays["supervised_mm"][joints],
        model,
        zoom=zoom if crop.z_scaled_with_zoom else 1.0,
        mask_outside=crop.mask_outside,
    )
    return Plan(
        stored_from_crop=invert_affine(crop_from_stored).astype(np.float32),
        gains=gains.astype(np.float32),
        zoom=zoom.astype(np.float32),
        angle=angle.astype(np.float32),
        mirrored=mirrored,
        occlusions=draw_occlusions(uniform[:, _OCCLUDERS], settings, bank, model.crop_width, model.crop_height),
        targets=targets.astype(np.float32),
        weights=weights.astype(np.float32),
        vectors=vectors,
    )


def crop_matrices(box: np.ndarray, crop: CropSettings, model: ModelSettings) -> np.ndarray:
    """Affine maps `b 2 3` from the stored picture to the crop, for nominal boxes `b 4` (x y w h, px)."""
    if crop.aspect == "keep":
        box = fit_aspect(box, model.aspect)
    return crop_from_box(box, model.crop_width, model.crop_height)


def turn_matrices(zoom: np.ndarray, angle: np.ndarray, model: ModelSettings) -> np.ndarray:
    """Affine maps `b 2 3` within the crop: scaled by `zoom` `b` and turned by `angle` `b` (rad) about its centre."""
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    centre = np.array([model.crop_width, model.crop_height]) / 2
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    return np.concatenate([linear, (centre - linear @ centre)[..., None]], -1)


def mirror_matrix(width: int) -> np.ndarray:
    """The affine map `2 3` that mirrors a picture `width` px wide."""
    return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])


def needed_cover(augment: AugmentSettings, crop: CropSettings, model: ModelSettings) -> tuple[float, float]:
    """Width and height, in nominal boxes (which are square), of all that the crops of a run can see."""
    width, height = (1.0, 1.0) if crop.aspect == "stretch" else (max(1.0, model.aspect), max(1.0, 1 / model.aspect))
    most = np.deg2rad(augment.rotation_deg if augment.rotation else 0.0)
    angles = np.linspace(0, most, 181)
    cos, sin = np.abs(np.cos(angles)), np.abs(np.sin(angles))
    # Crops turn in their own pixels, which a stretched crop has fewer of along one side.
    wide = width * (cos + sin / model.aspect).max()
    high = height * (cos + sin * model.aspect).max()
    smallest = 1 - (augment.zoom if augment.zoom_p else 0.0)
    return float(wide / smallest), float(high / smallest)


def check_cover(
    cover: tuple[float, float], augment: AugmentSettings, crop: CropSettings, model: ModelSettings, folder: str
) -> None:
    """Refuse crops that look beyond the stored pictures.

    Args:
        cover: width and height of the stored pictures in nominal boxes.
        augment: how far the crops turn and zoom.
        crop: how crops are cut; `allow_border` accepts everything.
        model: the crop's size.
        folder: of the shard set, for the message.

    Raises:
        InputError: with the cover that the shards would need.
    """
    needed = needed_cover(augment, crop, model)
    if not crop.allow_border and any(have < need - 1e-6 for have, need in zip(cover, needed, strict=True)):
        wanted = [math.ceil(need * 1000 - 1e-6) / 1000 for need in needed]
        raise InputError(
            f"{folder}: crops of {model.crop_width}x{model.crop_height} look beyond the stored pictures, which cover"
            f" {cover[0]:g} x {cover[1]:g} boxes; build the shards with --cover_width {wanted[0]:g}"
            f" --cover_height {wanted[1]:g}, or set crop.allow_border"
        )


def _draw(
    uniform: np.ndarray, settings: Sequence[AugmentSettings]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Whether crops are mirrored `b`, their colour gains `b 3`, zoom `b` and angle `b` (rad)."""
    amount = {
        name: np.array([getattr(one, name) for one in settings])
        for name in ("flip", "color", "color_p", "zoom", "zoom_p", "rotation_deg", "rotation")
    }
    mirrored = uniform[:, _FLIP] < amount["flip"]
    color = amount["color"] * (uniform[:, _RECOLOURS] < amount["color_p"])
    gains = 1 + color[:, None] * (2 * uniform[:, _GAINS] - 1)
    zooms = uniform[:, _ZOOMS] < amount["zoom_p"]
    zoom = 1 + zooms * amount["zoom"] * (2 * uniform[:, _ZOOM] - 1)
    turned = uniform[:, _TURNS] < amount["rotation"]
    angle = np.deg2rad(turned * amount["rotation_deg"] * (2 * uniform[:, _ANGLE] - 1))
    return mirrored, gains, zoom, angle


def _uniform(draws: Draws, seed: int) -> np.ndarray:
    """Uniform numbers in [0, 1) `b n`, keyed by (seed, source, pass, sample)."""
    rows = np.empty((len(draws.sample), _DRAWS))
    bits = np.random.Philox(key=seed)
    generator, state = np.random.Generator(bits), bits.state
    for row, place in enumerate(zip(draws.sample, draws.turn, draws.source, strict=True)):
        # As a new Philox(key=seed, counter=[0, *place]) would be, which asks the system for entropy each time.
        state["state"]["counter"][1:] = place
        bits.state = state
        rows[row] = generator.random(_DRAWS)
    return rows
