"""The plan: draws belong to samples, targets follow the matrix, crops beyond the stored picture are refused."""

import numpy as np
import pytest

from poselib.camera import apply_affine, project
from poselib.errors import InputError
from poselib.settings import ModelSettings
from poselib.volume import decode
from shards.augment import NO_AUGMENTATION, check_cover, needed_cover, plan
from shards.loader_settings import AugmentSettings, CropSettings
from shards.order import Draws
from shards.sample import pack

pytestmark = pytest.mark.unit

MODEL = ModelSettings(crop_width=64, crop_height=64)
ALWAYS = AugmentSettings(flip=1.0, color=0.2)


def vectors(count: int = 6) -> np.ndarray:
    """Stored samples of people 5 m away, float32 `b n`."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        joints_mm = rng.uniform(-800, 800, (17, 3)) + np.array([0, 0, 5000])
        intrinsics = np.array([300.0, 300.0, 60.0, 60.0])
        rows.append(
            pack(
                {
                    "joints_px": project(joints_mm, intrinsics),
                    "joints_mm": joints_mm,
                    "supervised_px": np.ones(17),
                    "supervised_mm": np.ones(17),
                    "intrinsics": intrinsics,
                    "distortion": np.zeros(5),
                    "box": np.array([5.0, 8.0, 110.0, 110.0]),
                    "frame_from_stored": np.eye(2, 3),
                    "padded": np.zeros(1),
                    "head_size": np.zeros(1),
                }
            )
        )
    return np.stack(rows)


def draws(samples, source: int = 0, turn: int = 0) -> Draws:
    samples = np.asarray(samples)
    return Draws(np.full_like(samples, source), np.full_like(samples, turn), samples)


def test_a_samples_draws_do_not_depend_on_its_batch():
    augment, rows = AugmentSettings(flip=0.5, color=0.3), vectors(6)
    whole = plan(rows, draws(range(6)), [augment], CropSettings(), MODEL, seed=7)
    part = plan(rows[[4, 1]], draws([4, 1]), [augment], CropSettings(), MODEL, seed=7)
    np.testing.assert_array_equal(part.gains, whole.gains[[4, 1]])
    np.testing.assert_array_equal(part.stored_from_crop, whole.stored_from_crop[[4, 1]])


@pytest.mark.parametrize("change", [{"seed": 8}, {"turn": 1}, {"source": 1}])
def test_seed_pass_and_source_change_the_draws(change):
    seed = change.pop("seed", 7)
    before = plan(vectors(), draws(range(6)), [ALWAYS] * 2, CropSettings(), MODEL, seed=7)
    after = plan(vectors(), draws(range(6), **change), [ALWAYS] * 2, CropSettings(), MODEL, seed=seed)
    assert not np.any(np.isclose(before.gains, after.gains))


def test_flipping_does_not_change_the_colours():
    flipped = plan(vectors(), draws(range(6)), [ALWAYS], CropSettings(), MODEL, seed=7)
    straight = plan(vectors(), draws(range(6)), [AugmentSettings(flip=0.0)], CropSettings(), MODEL, seed=7)
    np.testing.assert_array_equal(flipped.gains, straight.gains)


def test_gains_fill_their_range():
    gains = np.concatenate(
        [plan(vectors(), draws(range(6), turn=t), [ALWAYS], CropSettings(), MODEL, 0).gains for t in range(50)]
    )
    assert gains.min() >= 0.8
    assert gains.max() <= 1.2
    assert gains.min() < 0.82
    assert gains.max() > 1.18


@pytest.mark.parametrize("augment", [NO_AUGMENTATION, ALWAYS], ids=["straight", "mirrored"])
@pytest.mark.parametrize("aspect", ["keep", "stretch"])
@pytest.mark.parametrize("size", [(64, 64), (288, 384), (96, 64)])
def test_true_targets_come_back_to_the_millimetre(augment, aspect, size):
    model = ModelSettings(crop_width=size[0], crop_height=size[1])
    rows = vectors()
    planned = plan(rows, draws(range(6)), [augment], CropSettings(aspect=aspect), model, seed=0)
    true = rows[:, 34 : 34 + 51].reshape(-1, 17, 3)
    found = decode(
        planned.targets.astype(np.float64),
        planned.stored_from_crop.astype(np.float64),
        true[:, 0, 2].astype(np.float64),
        np.array([300.0, 300.0, 60.0, 60.0]),
        None,
        model,
    )
    swapped = [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]
    expected = true[:, swapped] if augment is ALWAYS else true
    assert np.abs(found - expected).max() < 0.05


def test_a_mirrored_crop_shows_the_left_where_the_right_was():
    rows = vectors(1)
    straight = plan(rows, draws([0]), [NO_AUGMENTATION], CropSettings(), MODEL, seed=0)
    mirrored = plan(rows, draws([0]), [ALWAYS], CropSettings(), MODEL, seed=0)
    np.testing.assert_allclose(mirrored.targets[0, 1, 0], -straight.targets[0, 4, 0], atol=1e-6)
    np.testing.assert_allclose(mirrored.targets[0, 1, 1:], straight.targets[0, 4, 1:], atol=1e-6)
    left_edge = apply_affine(mirrored.stored_from_crop[0], np.array([[0.0, 0.0]]))[0]
    assert left_edge[0] == pytest.approx(115.0, abs=1e-4)


def test_crops_beyond_the_stored_picture_are_refused_with_the_cover_they_need():
    tall = ModelSettings(crop_width=288, crop_height=384)
    still = NO_AUGMENTATION
    with pytest.raises(InputError, match=r"--cover_width 1 --cover_height 1.334"):
        check_cover((1.0, 1.0), still, CropSettings(), tall, "set")
    check_cover((1.0, 1.334), still, CropSettings(), tall, "set")
    check_cover((1.0, 1.0), still, CropSettings(aspect="stretch"), tall, "set")
    check_cover((1.0, 1.0), still, CropSettings(allow_border=True), tall, "set")


@pytest.mark.parametrize("size", [(64, 64), (96, 128)])
@pytest.mark.parametrize("aspect", ["keep", "stretch"])
def test_the_cover_that_is_asked_for_holds_every_crop(size, aspect):
    augment = AugmentSettings(flip=0.5, zoom=0.25, rotation_deg=30.0, rotation=1.0)
    model, crop = ModelSettings(crop_width=size[0], crop_height=size[1]), CropSettings(aspect=aspect)
    seen = []
    for turn in range(60):
        planned = plan(vectors(), draws(range(6), turn=turn), [augment], crop, model, seed=0)
        corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size], float)
        at = apply_affine(planned.stored_from_crop.astype(float), corners)
        seen.append((at - [60, 63]) / 110)  # the box' centre and side
    reach = 2 * np.abs(np.concatenate(seen)).max((0, 1))
    needed = np.array(needed_cover(augment, crop, model))
    assert np.all(reach <= needed + 1e-6)
    assert np.all(reach > 0.9 * needed)
