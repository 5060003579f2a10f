"""Every kind of augmentation: its own probability, its own places among the draws, exact targets."""

from dataclasses import replace

import numpy as np
import pytest

from poselib.camera import project
from poselib.errors import InputError
from poselib.settings import ModelSettings
from poselib.volume import decode
from shards.augment import Plan, needed_cover, plan
from shards.loader_settings import AugmentSettings, CropSettings
from shards.occlude import Bank, make_bank
from shards.order import Draws
from shards.sample import pack

pytestmark = pytest.mark.unit

MODEL = ModelSettings(crop_width=96, crop_height=128)
ALL = AugmentSettings(
    flip=0.5, color=0.2, color_p=0.7, zoom=0.25, zoom_p=0.8, rotation_deg=30.0, rotation=0.6, occluders=0.75
)
INTRINSICS = np.array([300.0, 310.0, 60.0, 70.0])
MIRRORED = [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]


@pytest.fixture(scope="module")
def bank() -> Bank:
    rng = np.random.default_rng(0)
    return make_bank(
        rng.integers(0, 256, (height, width, 4), np.uint8) for height, width in [(20, 31), (40, 8), (9, 9)]
    )


def people(count: int) -> np.ndarray:
    """Stored samples, float32 `b n`; the pelvis is 5 m away."""
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(count):
        joints_mm = rng.uniform(-800, 800, (17, 3)) + np.array([0, 0, 5000])
        arrays = {
            "joints_px": project(joints_mm, INTRINSICS),
            "joints_mm": joints_mm,
            "supervised_px": rng.integers(0, 2, 17),
            "supervised_mm": np.concatenate([[1], rng.integers(0, 2, 16)]),
            "intrinsics": INTRINSICS,
            "distortion": np.zeros(5),
            "box": np.array([5.0, 8.0, 110.0, 112.0]),
            "frame_from_stored": np.eye(2, 3),
            "padded": np.zeros(1),
            "head_size": np.zeros(1),
        }
        rows.append(pack(arrays))
    return np.stack(rows)


def planned(bank: Bank, augment: AugmentSettings, count: int = 64, turn: int = 0, **crop) -> Plan:
    places = np.arange(count)
    draws = Draws(np.zeros_like(places), np.full_like(places, turn), places)
    return plan(people(count), draws, [augment], CropSettings(**crop), MODEL, seed=3, bank=bank)


def looks(made: Plan) -> dict[str, np.ndarray]:
    """What each kind of augmentation drew."""
    pasted = made.occlusions
    used = np.arange(8) < pasted.count[:, None]
    return {
        "flip": made.mirrored,
        "color": made.gains,
        "zoom": made.zoom,
        "rotation": made.angle,
        "occluders": np.where(used[..., None, None], pasted.object_from_crop, 0),
        "objects": np.where(used, pasted.number * 10 + pasted.level, -1),
    }


def test_draws_follow_seed_source_pass_and_sample_in_any_batch_rank_and_order(bank):
    """A micro-batch of two sources, shuffled and dealt to three ranks, gives each sample what the whole gave it."""
    other = replace(ALL, occluders=1.0, flip=0.3)
    rng = np.random.default_rng(2)
    places = Draws(rng.integers(0, 2, 30), rng.integers(0, 4, 30), rng.permutation(30))
    rows = people(30)
    whole = looks(plan(rows, places, [ALL, other], CropSettings(), MODEL, 3, bank))
    shuffled = rng.permutation(30)
    for rank in range(3):
        mine = shuffled[rank::3]
        part = Draws(places.source[mine], places.turn[mine], places.sample[mine])
        for name, drawn in looks(plan(rows[mine], part, [ALL, other], CropSettings(), MODEL, 3, bank)).items():
            np.testing.assert_array_equal(drawn, whole[name][mine], err_msg=name)


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("flip", {"flip": 0.0}),
        ("color", {"color_p": 0.0}),
        ("zoom", {"zoom_p": 0.0}),
        ("rotation", {"rotation": 0.0}),
        ("occluders", {"occluders": 0.0}),
    ],
)
def test_switching_one_kind_off_leaves_the_draws_of_the_others(bank, name, off):
    on, without = looks(planned(bank, ALL)), looks(planned(bank, replace(ALL, **off)))
    assert not np.array_equal(on[name], without[name])
    for other in on.keys() - {name, *(["objects"] if name == "occluders" else [])}:
        np.testing.assert_array_equal(on[other], without[other], err_msg=other)


def test_the_first_draws_of_a_sample_are_those_of_its_generator(bank):
    """Runs of earlier versions go on with the same augmentation: new kinds only take places behind the old ones."""
    made = planned(bank, replace(ALL, color_p=1.0, zoom_p=1.0), count=5, turn=2)
    for sample in range(5):
        first = np.random.Generator(np.random.Philox(key=3, counter=[0, sample, 2, 0])).random(7)
        assert made.mirrored[sample] == (first[0] < 0.5)
        np.testing.assert_allclose(made.gains[sample], 0.8 + 0.4 * first[1:4], rtol=1e-6)
        np.testing.assert_allclose(made.zoom[sample], 0.75 + 0.5 * first[4], rtol=1e-6)
        angle = np.deg2rad(60 * first[6] - 30) if first[5] < 0.6 else 0
        np.testing.assert_allclose(made.angle[sample], angle, atol=1e-6)


def test_each_kind_happens_as_often_as_its_probability_says(bank):
    made = planned(bank, ALL, count=4000)
    shares = {
        0.5: made.mirrored,
        0.7: np.any(made.gains != 1, axis=1),
        0.8: made.zoom != 1,
        0.6: made.angle != 0,
        0.75: made.occlusions.count > 0,
    }
    for probability, happened in shares.items():
        assert abs(happened.mean() - probability) < 0.035  # over 4 standard deviations


def test_kinds_are_drawn_apart_from_each_other(bank):
    made = planned(bank, ALL, count=4000)
    happened = [made.mirrored, np.any(made.gains != 1, axis=1), made.zoom != 1, made.angle != 0]
    correlations = np.corrcoef(np.array([*happened, made.occlusions.count > 0], float))
    assert np.abs(correlations - np.eye(5)).max() < 0.07


@pytest.mark.parametrize(("count", "size"), [((1, 8), (0.2, 1.0)), ((2, 5), (0.5, 0.6)), ((3, 3), (1.0, 2.0))])
def test_objects_are_as_many_as_large_and_where_the_settings_say(bank, count, size):
    made = planned(bank, replace(ALL, occluder_count=count, occluder_size=size), count=3000).occlusions
    counts = made.count[made.count > 0]
    expected = np.arange(count[0], count[1] + 1)
    assert set(counts) == set(expected)
    assert np.abs(np.bincount(counts)[expected] / len(counts) - 1 / len(expected)).max() < 0.04
    used = np.arange(8) < made.count[:, None]
    maps, level_sizes = made.object_from_crop[used].astype(np.float64), bank.sizes[made.number, made.level][used]
    shown_px = level_sizes / maps[:, [0, 1], [0, 1]]  # how large the object is in the crop
    relative = shown_px / bank.sizes[made.number, 0][used] / (96 / 256)
    np.testing.assert_allclose(relative[:, 0], relative[:, 1], rtol=1e-5)
    assert size[0] <= relative.min() < size[0] + 0.02 * (size[1] - size[0]) + 1e-5
    assert size[1] >= relative.max() - 1e-5 > size[1] - 0.02 * (size[1] - size[0]) - 2e-5
    assert relative.mean() == pytest.approx(np.mean(size), rel=0.02)
    centres = (level_sizes / 2 - maps[:, :, 2]) / maps[:, [0, 1], [0, 1]] / [96, 128]
    assert np.all((centres > -1e-5) & (centres < 1 + 1e-5))
    np.testing.assert_allclose(np.quantile(centres, [0.1, 0.5, 0.9], axis=0).T, [[0.1, 0.5, 0.9]] * 2, atol=0.03)
    shares = np.bincount(made.number[used], minlength=3) / used.sum()
    assert np.abs(shares - 1 / 3).max() < 0.04


def test_a_source_may_have_objects_where_another_has_none(bank):
    places = np.arange(40)
    draws = Draws(places % 2, np.zeros_like(places), places)
    made = plan(people(40), draws, [replace(ALL, occluders=1.0), AugmentSettings()], CropSettings(), MODEL, 3, bank)
    np.testing.assert_array_equal(made.occlusions.count > 0, draws.source == 0)


def test_objects_without_a_bank_are_refused():
    with pytest.raises(InputError, match="no occluder bank"):
        planned(None, ALL)


@pytest.mark.parametrize("aspect", ["keep", "stretch"])
@pytest.mark.parametrize("z_scaled_with_zoom", [True, False])
def test_true_targets_come_back_through_all_augmentations(bank, aspect, z_scaled_with_zoom):
    made = planned(bank, ALL, aspect=aspect, z_scaled_with_zoom=z_scaled_with_zoom)
    joints_mm, known_px, known_mm = made.vectors[:, 34:85], made.vectors[:, 85:102], made.vectors[:, 102:119]
    swap = np.where(made.mirrored[:, None], MIRRORED, np.arange(17))
    truth = np.take_along_axis(joints_mm.reshape(-1, 17, 3), swap[..., None], 1)
    found = decode(
        made.targets.astype(np.float64),
        made.stored_from_crop.astype(np.float64),
        truth[:, 0, 2].astype(np.float64),
        INTRINSICS,
        None,
        MODEL,
        zoom=made.zoom.astype(np.float64) if z_scaled_with_zoom else 1.0,
    )
    assert np.linalg.norm(found - truth, axis=-1).max() < 0.05
    for known, axis in ((known_px, 0), (known_px, 1), (known_mm, 2)):
        np.testing.assert_array_equal(made.weights[..., axis], np.take_along_axis(known, swap, 1))


def test_a_kind_that_never_happens_needs_no_cover():
    never = AugmentSettings(zoom=0.25, zoom_p=0.0, rotation_deg=30.0, rotation=0.0)
    square = ModelSettings(crop_width=64, crop_height=64)
    assert needed_cover(never, CropSettings(), square) == pytest.approx((1.0, 1.0))
    assert needed_cover(replace(never, zoom_p=0.1), CropSettings(), square)[0] == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"occluders": 1.1}, "occluders must lie in 0..1"),
        ({"color_p": -0.1}, "color_p must lie in 0..1"),
        ({"occluder_count": (0, 3)}, "occluder_count must rise within 1..8"),
        ({"occluder_count": (3, 9)}, "occluder_count must rise within 1..8"),
        ({"occluder_count": (4, 3)}, "occluder_count must rise within 1..8"),
        ({"occluder_size": (0.0, 1.0)}, "occluder_size must rise within 0..4"),
        ({"occluder_size": (0.5, 0.4)}, "occluder_size must rise within 0..4"),
    ],
)
def test_impossible_settings_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        AugmentSettings(**wrong)
