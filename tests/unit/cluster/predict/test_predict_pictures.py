"""Pictures as people have them: every kind comes out upright, 8-bit RGB, and bad ones as one line."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from cluster.predict.pictures import FULL_FRAME_DIAGONAL_MM, open_photo
from poselib.errors import InputError

pytestmark = pytest.mark.unit

LIMIT = 64_000_000


def ramp(height: int = 40, width: int = 60) -> np.ndarray:
    """Dark at the upper left, brighter to the right in red, downwards in green."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 250, width)
    picture[..., 1] = np.linspace(0, 250, height)[:, None]
    return picture


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The begin of a PNG of this size; its pixels are lacking."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100)))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_a_jpeg_is_turned_as_its_tag_says(orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(Image.fromarray(ramp()), "JPEG", exif=exif, quality=95)
    shown = open_photo(stored, "a.jpg", LIMIT).pixels
    want = np.rot90(ramp(), turns)
    assert shown.shape == want.shape
    assert np.abs(shown.astype(int) - want).mean() < 4


def test_cmyk_is_shown_in_its_colours():
    stored = encoded(Image.fromarray(ramp()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(open_photo(stored, "a.jpg", LIMIT).pixels.astype(int) - ramp()).mean() < 5


def test_sixteen_bits_keep_the_upper_eight():
    grey = (np.linspace(0, 65535, 60) * np.ones((40, 1))).astype(np.uint16)
    shown = open_photo(encoded(Image.fromarray(grey), "PNG"), "a.png", LIMIT).pixels
    assert shown.shape == (40, 60, 3)
    np.testing.assert_array_equal(shown, np.repeat((grey >> 8)[..., None], 3, axis=2))
    colour = ramp().astype(np.uint16) * 257
    _, stored = cv2.imencode(".png", colour[..., ::-1])
    np.testing.assert_array_equal(open_photo(stored.tobytes(), "b.png", LIMIT).pixels, ramp())


def test_transparency_shows_white_and_palettes_their_colours():
    clear = Image.fromarray(np.dstack([ramp(), np.zeros((40, 60), np.uint8)]), "RGBA")
    assert (open_photo(encoded(clear, "PNG"), "a.png", LIMIT).pixels == 255).all()
    few = Image.fromarray(ramp()).quantize(64)
    np.testing.assert_array_equal(open_photo(encoded(few, "PNG"), "b.png", LIMIT).pixels, np.array(few.convert("RGB")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a.jpg: is empty, 0 bytes"),
        (b"no picture at all", "a.jpg: is no picture"),
        (encoded(Image.fromarray(ramp(200, 200)), "JPEG")[:700], "a.jpg: cannot be read"),
        (png_header(20_000, 20_000), "a.jpg: has far more than"),
        (png_header(20_000, 5_000), "a.jpg: is 20000 x 5000 px"),
        (png_header(100, 100), "a.jpg: cannot be read"),
    ],
)
def test_bad_pictures_are_one_line(content, said):
    with pytest.raises(InputError, match=said) as caught:
        open_photo(content, "a.jpg", LIMIT)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_one_line(tmp_path):
    for path in (tmp_path / "nowhere.jpg", tmp_path):
        with pytest.raises(InputError, match="x: cannot be read"):
            open_photo(path, "x", LIMIT)


def with_exif(**tags) -> bytes:
    from PIL.ExifTags import IFD, Base

    exif = Image.Exif()
    exif.get_ifd(IFD.Exif).update({getattr(Base, name): value for name, value in tags.items()})
    return encoded(Image.fromarray(ramp(400, 600)), "JPEG", exif=exif)


def test_focal_lengths_are_read_from_exif():
    assert open_photo(with_exif(), "a", LIMIT).focal_px == 0
    equivalent = open_photo(with_exif(FocalLengthIn35mmFilm=50), "a", LIMIT).focal_px
    assert equivalent == pytest.approx(50 * np.hypot(600, 400) / FULL_FRAME_DIAGONAL_MM)
    # 5 mm before 120 px per mm, of a picture that was 1200 px wide and is 600 now.
    lens = with_exif(FocalLength=5.0, FocalPlaneXResolution=1200.0, FocalPlaneResolutionUnit=3, ExifImageWidth=1200)
    assert open_photo(lens, "a", LIMIT).focal_px == pytest.approx(5 * 120 / 2, rel=1e-6)
    assert open_photo(with_exif(FocalLengthIn35mmFilm=0), "a", LIMIT).focal_px == 0
