"""Pictures as people have them: opened, turned upright, made 8-bit RGB, with what they say of their lens."""

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from poselib.errors import InputError

FULL_FRAME_DIAGONAL_MM: Final = math.hypot(36, 24)
_UNITS_MM: Final = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture ready for use.

    Attributes:
        pixels: uint8 `h w 3`, RGB, upright.
        focal_px: its focal length in its own pixels, where its EXIF data say so; else 0.
    """

    pixels: np.ndarray
    focal_px: float = 0.0


def open_photo(source: Path | bytes, name: str, max_pixels: int) -> Photo:
    """Read a picture of any kind that Pillow knows, the first frame of an animated one.

    Args:
        source: a file or its content.
        name: for messages.
        max_pixels: larger pictures are refused before their pixels are read.

    Raises:
        InputError: one line: missing, empty, no picture, damaged, or too large.
    """
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as stream:
            return _read(stream, name, max_pixels)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: is no picture that can be read") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: has far more than the {max_pixels} pixels that max_pixels allows") from error
    # Pillow's decoders raise whatever a damaged file makes of them.
    except Exception as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{name}: cannot be read: {said}") from error


def _read(stream: BinaryIO, name: str, max_pixels: int) -> Photo:
    if not stream.read(1):
        raise InputError(f"{name}: is empty, 0 bytes")
    stream.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about size, which is judged here, and about odd metadata
        with Image.open(stream) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise InputError(
                    f"{name}: is {width} x {height} px, more than the {max_pixels} pixels that max_pixels allows"
                )
            focal_px = focal_from_exif(picture)
            upright = ImageOps.exif_transpose(picture)
            return Photo(_to_rgb(upright), focal_px)


def _to_rgb(picture: Image.Image) -> np.ndarray:
    """8-bit RGB; 16-bit grey keeps its upper byte, transparency shows white."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        # Pillow would clip at 255 instead of scaling.
        grey = (np.clip(values, 0, 65535) >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))
    if picture.mode == "F":
        raise ValueError("pixels are fractions, whose range nobody knows; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        shown = picture.convert("RGBA")
        return np.array(Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB"))
    return np.array(picture.convert("RGB"))


def focal_from_exif(picture: Image.Image) -> float:
    """Focal length in px of the stored picture, or 0 where its EXIF data do not say.

    By the focal length equivalent to 35 mm film, which compares diagonals (CIPA DCG-001), or by that of the lens and
    the sensor's pixels per length, scaled where the picture was scaled since.
    """
    exif = picture.getexif().get_ifd(ExifTags.IFD.Exif)
    width, height = picture.size
    equivalent = _number(exif.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if equivalent > 0:
        return equivalent * math.hypot(width, height) / FULL_FRAME_DIAGONAL_MM
    lens_mm = _number(exif.get(ExifTags.Base.FocalLength))
    density = _number(exif.get(ExifTags.Base.FocalPlaneXResolution))
    unit_mm = _UNITS_MM.get(int(_number(exif.get(ExifTags.Base.FocalPlaneResolutionUnit))) or 2, 0.0)
    if lens_mm <= 0 or density <= 0 or not unit_mm:
        return 0.0
    taken = _number(exif.get(ExifTags.Base.ExifImageWidth)) or width
    return lens_mm * density / unit_mm * width / taken


def _number(value: object) -> float:
    """A positive, finite number, or 0."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if 0 < number < math.inf else 0.0
