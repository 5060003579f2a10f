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
from shards.manifest import MANIFEST, open_manifest
from shards.place import Place
from shards.records import Manifest
from shards.sample import Names
from shards.storage_settings import StorageSettings


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


def load_occluders(folder: Path | str, storage: StorageSettings | None = None) -> list[np.ndarray]:
    """All occluders of a bank, uint8 `h w 4` each, RGBA, in the bank's order.

    Args:
        folder: where the bank lies, a folder or a URL.
        storage: how it is reached.

    Raises:
        InputError: no finished bank there, or a shard that cannot be read.
    """
    place = Place(folder, storage or StorageSettings())
    manifest = _open_bank(place)
    pictures = []
    for shard in manifest.shards:
        try:
            with tarfile.open(place.local(shard.file, shard.sha256, shard.bytes)) as tar:
                for member in tar:
                    stream = tar.extractfile(member)
                    if stream is not None and member.name.endswith(".png"):
                        pictures.append(_decode(stream.read()))
        except (OSError, tarfile.TarError, ValueError) as error:
            raise InputError(f"{place.of(shard.file)} cannot be read ({error}); build the bank again") from error
    return pictures


def _open_bank(place: Place) -> Manifest:
    if place.folder is not None and not (place.folder / MANIFEST).is_file():
        raise InputError(f"{place.name} is no finished occluder bank: it has no {MANIFEST}; build one from VOC2012")
    manifest = open_manifest(place.name, place.settings)
    if manifest.kind != "occluders":
        raise InputError(f"{place.name} holds {manifest.kind}, not occluders")
    return manifest


def _decode(png: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
        raise ValueError("a PNG without four channels")
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA)
