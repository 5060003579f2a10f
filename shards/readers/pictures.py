"""Still pictures, read strictly."""

from pathlib import Path

import numpy as np
from PIL import Image


def load_picture(path: Path) -> np.ndarray:
    """A picture as uint8 `h w 3`, RGB, in the orientation its pixels are stored in.

    Pillow, since OpenCV turns pictures by their EXIF tag and fills truncated ones with grey.

    Raises:
        OSError: missing, truncated or no picture.
    """
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def load_labels(path: Path) -> np.ndarray:
    """A picture of labels as stored, palette indices and all: uint8 `h w`.

    Raises:
        OSError: missing, truncated or no picture.
        ValueError: a colour picture, which holds no labels.
    """
    with Image.open(path) as picture:
        if picture.mode not in ("P", "L"):
            raise ValueError(f"a picture of mode {picture.mode} holds no labels; a palette picture does")
        return np.asarray(picture)
