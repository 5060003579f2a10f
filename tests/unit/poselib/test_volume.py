from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poselib.camera import (
    apply_affine,
    compose_affine,
    crop_from_box,
    fit_aspect,
    invert_affine,
    project,
    root_box,
    tight_box,
)
from poselib.settings import ModelSettings
from poselib.skeleton import mirror_permutation
from poselib.volume import decode, encode, mirror, to_crop_px

pytestmark = pytest.mark.unit

KINDS = pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
MODEL = ModelSettings(crop_width=192, crop_height=256)


@dataclass(frozen=True)
class Scene:
    """People before cameras, float32 as shards hold them: `n` samples of 17 joints."""

    model: ModelSettings
    joints_px: np.ndarray
    joints_mm: np.ndarray
    intrinsics: np.ndarray
    distortion: np.ndarray | None
    crop_from_stored: np.ndarray
    zoom: np.ndarray


def augmentation(zoom: np.ndarray, angle: np.ndarray, mirrored: bool, model: ModelSettings) -> np.ndarray:
    """Crop to augmented crop `n 2 3`: zoom and rotation about its centre, then the mirror."""
    c, s = zoom * np.cos(angle), zoom * np.sin(angle)
    turn = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    centre = np.array([model.crop_width / 2, model.crop_height / 2])
    matrix = np.concatenate([turn, (centre - turn @ centre)[..., None]], axis=-1)
    flip = np.array([[-1.0, 0, model.crop_width], [0, 1, 0]])
    return compose_affine(np.broadcast_to(flip, matrix.shape), matrix) if mirrored else matrix


def make_scene(seed: int, size: tuple[int, int], lens: bool, box: str, keep_aspect: bool, mirrored: bool) -> Scene:
    rng = np.random.default_rng(seed)
    n = 4
    model = ModelSettings(crop_width=size[0], crop_height=size[1], depth_range_mm=rng.uniform(1000, 4000))
    root = rng.uniform([-700, -700, 3500], [700, 700, 7000], (n, 3))
    joints_mm = root[:, None] + rng.uniform(-900, 900, (n, 17, 3))
    joints_mm[:, 0] = root
    # A stored picture may be scaled and cut: so are its intrinsics.
    scale, shift = rng.uniform(0.2, 1.0, (n, 1)), rng.uniform(-600, 100, (n, 2))
    intrinsics = np.concatenate([scale * rng.uniform(1100, 1200, (n, 2)), scale * 500 + shift], axis=-1)
    low, high = [-0.25, -0.1, -0.01, -0.002, -0.002], [0.05, 0.25, 0.01, 0.002, 0.002]
    distortion = rng.uniform(low, high, (n, 5)) if lens else None
    joints_px = project(joints_mm, intrinsics, distortion)
    boxes = root_box(root, intrinsics, distortion) if box == "root2000" else tight_box(joints_px)
    boxes = fit_aspect(boxes, model.aspect) if keep_aspect else boxes
    zoom = rng.uniform(0.75, 1.25, n)
    extra = augmentation(zoom, np.radians(rng.uniform(-30, 30, n)), mirrored, model)
    matrix = compose_affine(extra, crop_from_box(boxes, *size))
    arrays = (joints_px, joints_mm, intrinsics, distortion, matrix, zoom)
    return Scene(model, *(None if a is None else a.astype(np.float32) for a in arrays))


SCENES = {
    "seed": st.integers(0, 2**32 - 1),
    "size": st.sampled_from([(256, 256), (288, 384), (384, 288), (64, 96)]),
    "lens": st.booleans(),
    "box": st.sampled_from(["root2000", "tight"]),
    "keep_aspect": st.booleans(),
    "mirrored": st.booleans(),
}


@KINDS
@given(arguments=st.fixed_dictionaries(SCENES), z_scaled_with_zoom=st.booleans())
@settings(max_examples=100, deadline=None)
def test_geometry_closes(kind, arguments: dict, z_scaled_with_zoom: bool) -> None:
    scene = make_scene(**arguments)
    zoom = kind(scene.zoom) if z_scaled_with_zoom else 1.0
    joints_mm, known = kind(scene.joints_mm), kind(np.ones((4, 17), np.float32))
    in_crop = apply_affine(kind(scene.crop_from_stored), kind(scene.joints_px))
    targets, weights = encode(in_crop, joints_mm, known, known, scene.model, zoom=zoom)
    distortion = None if scene.distortion is None else kind(scene.distortion)
    back, intrinsics = invert_affine(kind(scene.crop_from_stored)), kind(scene.intrinsics)
    out = decode(targets, back, joints_mm[:, 0, 2], intrinsics, distortion, scene.model, zoom=zoom)
    assert type(out) is type(joints_mm)
    assert out.dtype == joints_mm.dtype
    assert bool((weights == 1).all())
    error_mm = np.linalg.norm(np.asarray(out) - scene.joints_mm, axis=-1)
    assert error_mm.max() < 0.05


@KINDS
def test_targets_by_hand(kind) -> None:
    joints_px, joints_mm = np.zeros((17, 2)), np.full((17, 3), 5000.0)
    joints_px[3], joints_mm[3, 2] = (48.0, 256.0), 5500.0
    known = kind(np.ones(17))
    targets, _ = encode(kind(joints_px), kind(joints_mm), known, known, MODEL)
    assert targets[3].tolist() == [48 / 192 - 0.5, 0.5, 0.25]
    assert targets[0].tolist() == [-0.5, -0.5, 0.0]
    halved, _ = encode(kind(joints_px), kind(joints_mm), known, known, MODEL, zoom=2.0)
    assert halved[3].tolist() == [48 / 192 - 0.5, 0.5, 0.125]


@KINDS
def test_weights_follow_what_is_known(kind) -> None:
    joints_px, joints_mm = np.full((2, 17, 2), 90.0), np.zeros((2, 17, 3))
    supervised_px, supervised_mm = np.ones((2, 17)), np.ones((2, 17))
    supervised_px[0, 5] = supervised_mm[0, 6] = 0
    supervised_mm[1, 0] = 0  # without a pelvis, depth has no zero
    arrays = (kind(a) for a in (joints_px, joints_mm, supervised_px, supervised_mm))
    _, weights = encode(*arrays, MODEL)
    expected = np.ones((2, 17, 3))
    expected[0, 5, :2] = expected[0, 6, 2] = expected[1, :, 2] = 0
    np.testing.assert_array_equal(np.asarray(weights), expected)


@KINDS
def test_mask_outside_drops_joints_beyond_the_volume(kind) -> None:
    joints_px, joints_mm = np.full((17, 2), 90.0), np.zeros((17, 3))
    supervised_mm = np.ones(17)
    joints_px[1, 0], joints_px[2, 1] = -0.5, 256.5
    joints_mm[3, 2], joints_mm[4, 2] = 1001.0, -1001.0
    joints_px[5], joints_mm[6, 2] = (192.0, 0.0), 1000.0  # on the border: inside
    joints_mm[7, 2], supervised_mm[7] = 9999.0, 0  # depth unknown: no reason to drop u and v
    arrays = [kind(a) for a in (joints_px, joints_mm, np.ones(17), supervised_mm)]
    _, masked = encode(*arrays, MODEL, mask_outside=True)
    _, plain = encode(*arrays, MODEL)
    expected = np.ones((17, 3))
    expected[7, 2] = 0
    np.testing.assert_array_equal(np.asarray(plain), expected)
    expected[1:5] = 0
    np.testing.assert_array_equal(np.asarray(masked), expected)


@KINDS
def test_mirror_undoes_a_mirrored_crop(kind) -> None:
    rng = np.random.default_rng(0)
    joints_px, joints_mm = rng.uniform(0, 192, (3, 17, 2)), rng.normal(0, 300, (3, 17, 3))
    known = kind(np.ones((3, 17)))
    plain, _ = encode(kind(joints_px), kind(joints_mm), known, known, MODEL)
    order = mirror_permutation()
    flipped = np.stack([192 - joints_px[:, order, 0], joints_px[:, order, 1]], axis=-1)
    answer, _ = encode(kind(flipped), kind(joints_mm[:, order]), known, known, MODEL)
    np.testing.assert_allclose(np.asarray(mirror(answer)), np.asarray(plain), atol=1e-12)
    np.testing.assert_array_equal(np.asarray(mirror(mirror(plain))), np.asarray(plain))


@KINDS
def test_crop_pixels_of_an_answer(kind) -> None:
    uvz = kind(np.array([[-0.5, -0.5, 0.1], [0.0, 0.5, 0.2]]))
    assert to_crop_px(uvz, MODEL).tolist() == [[0.0, 0.0], [96.0, 256.0]]
