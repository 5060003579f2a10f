"""The occluder bank in memory, and pasting: only the object's rectangle, blended by alpha."""

import numpy as np
import pytest

from shards.loader_settings import AugmentSettings
from shards.occlude import LEVELS, OCCLUDER_DRAWS, draw_occlusions, layers, make_bank, most_occluders, open_bank, paste
from shards.occluders import load_occluders

pytestmark = pytest.mark.unit


def solid(height: int, width: int, colour: tuple[int, int, int], alpha: int) -> np.ndarray:
    return np.full((height, width, 4), (*colour, alpha), np.uint8)


def at(left: float, top: float, scale: float = 1.0) -> np.ndarray:
    """The map `2 3` from the crop to an object that stands there, `scale` times as large."""
    return np.array([[1 / scale, 0, -left / scale], [0, 1 / scale, -top / scale]], np.float32)


def test_a_bank_holds_premultiplied_objects_at_falling_sizes():
    bank = make_bank([solid(40, 24, (200, 100, 50), 128), solid(3, 1, (255, 255, 255), 255)])
    assert [level.shape[:2] for level in bank.levels[0]] == [(40, 24), (20, 12), (10, 6), (5, 3)]
    assert [level.shape[:2] for level in bank.levels[1]] == [(3, 1), (2, 1), (1, 1), (1, 1)]
    for level in bank.levels[0]:
        np.testing.assert_allclose(level[0, 0], [100, 50, 25, 128], atol=1)
    np.testing.assert_array_equal(bank.sizes[0, :, 0], [24, 12, 6, 3])


def test_a_built_bank_opens_with_all_its_objects(shard_sets):
    bank, pictures = open_bank(shard_sets["voc"]), load_occluders(shard_sets["voc"])
    assert len(bank.levels) == len(pictures) > 1
    for levels, picture in zip(bank.levels, pictures, strict=True):
        assert len(levels) == LEVELS
        np.testing.assert_array_equal(levels[0][..., 3], picture[..., 3])
        assert np.all(levels[0][..., :3] <= picture[..., 3:])


def test_an_opaque_object_replaces_exactly_its_pixels():
    crop = np.full((20, 30, 3), 10, np.uint8)
    paste(crop, solid(5, 7, (200, 100, 50), 255), at(4, 8))
    expected = np.full((20, 30, 3), 10, np.uint8)
    expected[8:13, 4:11] = (200, 100, 50)
    np.testing.assert_array_equal(crop, expected)


def test_alpha_blends():
    crop = np.full((8, 8, 3), 100, np.uint8)
    (bank,) = make_bank([solid(8, 8, (200, 0, 100), 192)]).levels
    paste(crop, bank[0], at(0, 0))
    share = 192 / 255
    np.testing.assert_allclose(crop[3, 3], np.array([200, 0, 100]) * share + 100 * (1 - share), atol=1)


def test_later_objects_lie_over_earlier_ones():
    crop = np.zeros((6, 6, 3), np.uint8)
    paste(crop, solid(4, 4, (255, 0, 0), 255), at(0, 0))
    paste(crop, solid(4, 4, (0, 255, 0), 255), at(2, 2))
    np.testing.assert_array_equal(crop[3, 3], (0, 255, 0))
    np.testing.assert_array_equal(crop[1, 1], (255, 0, 0))


@pytest.mark.parametrize("place", [(-3, -2), (27, 17), (-3, 17), (-100, 5), (5, 100), (30.6, 5)])
def test_objects_are_cut_off_by_the_crops_edge(place):
    """What is seen of an object does not depend on how far beyond the edge it reaches."""
    crop, wide = np.full((20, 30, 3), 10, np.uint8), np.full((260, 270, 3), 10, np.uint8)
    picture = np.random.default_rng(0).integers(0, 256, (6, 7, 4)).astype(np.uint8)
    picture[..., :3] = np.minimum(picture[..., :3], picture[..., 3:])
    paste(crop, picture, at(*place, scale=1.5))
    paste(wide, picture, at(place[0] + 120, place[1] + 120, scale=1.5))
    np.testing.assert_allclose(crop.astype(int), wide[120:140, 120:150].astype(int), atol=1)


@pytest.mark.parametrize("scale", [0.55, 0.8, 1.0, 1.7])
def test_nothing_changes_outside_the_objects_rectangle(scale):
    crop = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    before = crop.copy()
    paste(crop, solid(10, 10, (0, 0, 0), 255), at(12.3, 9.6, scale))
    y, x = np.nonzero((crop != before).any(-1))
    # An edge fades out over half a pixel of the object.
    assert 12.3 - 0.5 * scale - 1 <= x.min()
    assert x.max() <= 12.3 + 10.5 * scale
    assert 9.6 - 0.5 * scale - 1 <= y.min()
    assert y.max() <= 9.6 + 10.5 * scale


def test_objects_are_warped_from_the_next_larger_size():
    """No object is enlarged from a smaller stored size, and none is shrunk by more than half but from the smallest."""
    bank = make_bank([solid(64, 48, (1, 2, 3), 255)])
    augment = [AugmentSettings(occluders=1.0, occluder_count=(8, 8), occluder_size=(0.05, 2.0))] * 200
    drawn = draw_occlusions(np.random.default_rng(0).random((200, OCCLUDER_DRAWS)), augment, bank, 256, 320)
    per_px = drawn.object_from_crop[..., 0, 0]
    assert set(drawn.level.ravel()) == {0, 1, 2, 3}
    assert np.all(per_px[drawn.level > 0] >= 1 - 1e-5)
    assert np.all(per_px[drawn.level < LEVELS - 1] <= 2 + 1e-5)


def test_layers_hold_as_many_objects_as_were_drawn():
    bank = make_bank([solid(8, 8, (1, 2, 3), 255), solid(4, 6, (9, 9, 9), 255)])
    augment = [AugmentSettings(occluders=0.5)] * 50
    drawn = draw_occlusions(np.random.default_rng(0).random((50, OCCLUDER_DRAWS)), augment, bank, 256, 256)
    made = layers(bank, drawn)
    assert [len(pictures) for pictures in made.pictures] == drawn.count.tolist()
    crop = int(np.flatnonzero(drawn.count > 1)[0])
    assert made.pictures[crop][1] is bank.levels[drawn.number[crop, 1]][drawn.level[crop, 1]]


def test_most_occluders_counts_only_sources_that_paste():
    still, few, many = (AugmentSettings(occluders=p, occluder_count=(1, n)) for p, n in ((0, 8), (0.1, 3), (1, 5)))
    assert most_occluders([still]) == 0
    assert most_occluders([still, few]) == 3
    assert most_occluders([many, few]) == 5
