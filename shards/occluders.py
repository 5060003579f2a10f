"""Pictures of objects that are pasted over people: the occluder bank.

The bank is a shard set of kind `occluders`: tars with `KEY.png` (RGBA) and `KEY.json` members.
"""

import json
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from poselib.errors import InputError
from shards.records import Manifest, read_manifest
from shards.sample import Names


@dataclass(frozen=True, eq=False)
class Occluder:
    """One cut-out object: uint8 `h w 4`, RGBA, alpha not premultiplied."""

    key: str
    names: Names
    picture: np.ndarray

    def members(self) -> dict[str, object]:
        """The tar members by ending, besides `__key__`, as webdataset's TarWriter takes them."""
        ok, png = cv2.imencode(".png", cv2.cvtColor(self.picture, cv2.COLOR_RGBA2BGRA))
        if not ok:
            raise ValueError(f"OpenCV could not encode {self.key} as PNG")
        return {
            "__key__": self.key,
            "json": json.dumps(asdict(self.names), sort_keys=True).encode(),
            "png": png.tobytes(),
        }


def load_occluders(folder: Path) -> list[np.ndarray]:
    """All occluders of a bank, uint8 `h w 4` each, RGBA, in the bank's order.

    Raises:
        InputError: no finished bank there, or a shard that cannot be read.
    """
    manifest = _open_bank(folder)
    pictures = []
    for shard in manifest.shards:
        try:
            with tarfile.open(folder / shard.file) as tar:
                for member in tar:
                    stream = tar.extractfile(member)
                    if stream is not None and member.name.endswith(".png"):
                        pictures.append(_decode(stream.read()))
        except (OSError, tarfile.TarError, ValueError) as error:
            raise InputError(f"{folder / shard.file} cannot be read ({error}); build the bank again") from error
    return pictures


def _open_bank(folder: Path) -> Manifest:
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(f"{folder} is no finished occluder bank: it has no manifest.json; build one from VOC2012")
    manifest = read_manifest(path)
    if manifest.kind != "occluders":
        raise InputError(f"{folder} holds {manifest.kind}, not occluders")
    return manifest


def _decode(png: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
        raise ValueError("a PNG without four channels")
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA)
