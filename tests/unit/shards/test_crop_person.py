import cv2
import numpy as np
import pytest

from poselib.camera import apply_affine, distort
from shards.crop import crop_person, stored_region
from shards.sample import Names
from shards.settings import BuildSettings
from shards.source import Person

pytestmark = pytest.mark.unit

INTRINSICS = np.array([220.0, 221.0, 100.0, 90.0])
DISTORTION = np.array([-0.2, 0.24, -0.002, -0.001, -0.0015])


def person(picture, box, distortion=DISTORTION) -> Person:
    ones = np.ones(17)
    return Person(
        "k", Names("h36m", "p"), picture, np.full((17, 2), 50.0), np.ones((17, 3)), ones, ones, np.array(box, float),
        INTRINSICS, distortion,
    )  # fmt: skip


def settings(**changes) -> BuildSettings:
    from pathlib import Path

    return BuildSettings(raw=Path("r"), out=Path("o"), **({"quality": 100} | changes))


def pixels(sample) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(sample.jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def ramp() -> np.ndarray:
    """Brightness rises along x and y, so every place is known from its colour."""
    ys, xs = np.mgrid[:180, :200] + 0.5
    return np.stack([xs, ys, np.full_like(xs, 128)], axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize("stored_px", [4000, 100, 71, 33])
def test_pixels_stand_where_the_affine_map_says(stored_px):
    sample = crop_person(person(ramp(), (30.3, 20.6, 101.2, 99.7)), settings(stored_px=stored_px, cover_width=1.1))
    picture = pixels(sample).astype(float)
    height, width = picture.shape[:2]
    places = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    in_frame = apply_affine(sample.arrays["frame_from_stored"].astype(float), places)
    inner = (slice(1, -1), slice(1, -1))
    assert np.abs(picture[..., :2] - in_frame)[inner].mean() < 0.75  # rounding of colours and JPEG
    assert np.abs((picture[..., :2] - in_frame)[inner].mean(axis=(0, 1))).max() < 0.1


def test_a_small_box_is_never_enlarged_and_keeps_the_frames_own_pixels():
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 255, (180, 200, 3), dtype=np.uint8), (0, 0), 3)
    sample = crop_person(person(noise, (40, 30, 64, 64)), settings(stored_px=384))
    assert pixels(sample).shape == (64, 64, 3)
    assert np.abs(pixels(sample).astype(int) - noise[30:94, 40:104]).mean() < 1.5
    np.testing.assert_array_equal(sample.arrays["frame_from_stored"], [[1, 0, 40], [0, 1, 30]])


@pytest.mark.parametrize("box", [(10.2, 20.7, 90.1, 91.3), (0, 0, 50, 50), (-30.5, 100, 120, 118)])
@pytest.mark.parametrize("cover", [(1.0, 1.0), (1.5, 1.2), (4.0, 1.0)])
def test_the_stored_picture_covers_what_was_asked_and_less_than_a_pixel_more(box, cover):
    wanted = settings(cover_width=cover[0], cover_height=cover[1], stored_px=40)
    (left, top, right, bottom), size = stored_region(np.array(box, float), wanted)
    half = np.array(box[2:]) * cover / 2
    centre = np.array(box[:2]) + np.array(box[2:]) / 2
    for edge, true in zip((left, top), centre - half, strict=True):
        assert -1e-5 <= true - edge < 1
    for edge, true in zip((right, bottom), centre + half, strict=True):
        assert -1e-5 <= edge - true < 1
    scale = np.array(size) / (right - left, bottom - top)
    assert (scale * box[2:]).max() <= 40 + 1e-4
    assert (scale * box[2:]).max() > 37


@pytest.mark.parametrize(
    ("box", "share"),
    [((0, 0, 100, 100), 0.0), ((-50, 0, 100, 100), 0.5), ((150, 130, 100, 100), 0.75), ((900, 900, 100, 100), 1.0)],
)
def test_what_lies_beyond_the_frame_is_black_and_counted(box, share):
    white = np.full((180, 200, 3), 255, np.uint8)
    sample = crop_person(person(white, box), settings(stored_px=50))
    assert sample.arrays["padded"][0] == pytest.approx(share)
    assert (pixels(sample) < 128).mean() == pytest.approx(share, abs=0.001)


def test_downscaling_is_antialiased():
    stripes = np.zeros((180, 200, 3), np.uint8)
    stripes[:, ::2] = 255
    picture = pixels(crop_person(person(stripes, (20, 20, 120, 120)), settings(stored_px=30)))
    assert np.abs(picture.astype(int) - 128).max() <= 2


@pytest.mark.parametrize("stored_px", [200, 60])
def test_undistorting_moves_each_pixel_to_where_a_pinhole_sees_it(stored_px):
    sample = crop_person(person(ramp(), (30, 20, 130, 130)), settings(stored_px=stored_px, lens="undistorted"))
    picture = pixels(sample).astype(float)
    height, width = picture.shape[:2]
    places = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    pinhole = (places - sample.arrays["intrinsics"][2:]) / sample.arrays["intrinsics"][:2]
    filmed = distort(pinhole.astype(float), DISTORTION) * INTRINSICS[:2] + INTRINSICS[2:]
    assert np.abs(picture[..., :2] - filmed).mean() < 0.6
    assert not sample.arrays["distortion"].any()
    straight = pixels(crop_person(person(ramp(), (30, 20, 130, 130)), settings(stored_px=stored_px)))
    assert np.abs(straight.astype(float) - picture).max() > 3  # the lens does bend this region


@pytest.mark.parametrize("box", [(0, 0, 5, 5), (0, 0, np.nan, 10), (np.inf, 0, 10, 10)])
def test_a_box_that_holds_nobody_is_refused(box):
    with pytest.raises(ValueError, match="box"):
        crop_person(person(ramp(), box), settings())
