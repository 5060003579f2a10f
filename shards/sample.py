"""What one sample of a shard holds: the format's only definition.

A shard is a plain WebDataset tar. A sample is three members with one key:

    KEY.jpg   a person with a margin around the nominal box, RGB JPEG, at most `stored_px` per box
    KEY.json  names, for people and filters (`Names`)
    KEY.npy   one float32 vector: everything numeric, laid out by `NUMERIC`

Pixel coordinates are those of the stored picture and continuous, as in `poselib.camera`; the intrinsics are the
stored picture's too, so every later crop is one affine matrix.
"""

import io
import json
from dataclasses import dataclass
from typing import Final

import numpy as np

from poselib.skeleton import H36M_JOINTS

FORMAT_VERSION: Final = 1
J: Final = len(H36M_JOINTS)

NUMERIC: Final[dict[str, tuple[int, ...]]] = {
    "joints_px": (J, 2),  # px, stored picture; under the set's lens setting
    "joints_mm": (J, 3),  # mm, camera frame; zeros without 3D truth
    "supervised_px": (J,),  # 1 where joints_px is known, else 0
    "supervised_mm": (J,),  # 1 where joints_mm is known, else 0
    "intrinsics": (4,),  # fx fy cx cy in px of the stored picture; zeros without a camera
    "distortion": (5,),  # k1 k2 k3 p1 p2; zeros where the set's lens is not `brown`
    "box": (4,),  # nominal person box, x y w h, px of the stored picture
    "frame_from_stored": (2, 3),  # affine map from the stored picture to the original frame
    "padded": (1,),  # share of the stored picture that lies beyond the original frame
    "head_size": (1,),  # PCKh's normaliser in px of the stored picture; 0 where unknown
}
NUMERIC_SIZE: Final = sum(int(np.prod(shape)) for shape in NUMERIC.values())


@dataclass(frozen=True)
class Names:
    """What a sample is called. `subject`, `action` and `camera` are empty where the source has none."""

    source: str
    picture: str
    subject: str = ""
    action: str = ""
    subaction: int = 0
    camera: str = ""
    frame: int = 0
    part: str = ""


@dataclass(frozen=True, eq=False)
class Sample:
    """One stored person: JPEG bytes, names, and the arrays of `NUMERIC`, float32."""

    key: str
    jpeg: bytes
    names: Names
    arrays: dict[str, np.ndarray]

    def members(self) -> dict[str, object]:
        """The tar members by ending, besides `__key__`, as webdataset's TarWriter takes them."""
        names = json.dumps(vars(self.names), sort_keys=True).encode()
        return {"__key__": self.key, "jpg": self.jpeg, "json": names, "npy": encode_arrays(self.arrays)}


def pack(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The arrays of one sample as one float32 vector of `NUMERIC_SIZE`.

    Raises:
        ValueError: an array is missing, unknown, of the wrong shape, or not finite.
    """
    if arrays.keys() != NUMERIC.keys():
        raise ValueError(f"a sample holds {sorted(NUMERIC)}, not {sorted(arrays)}")
    parts = []
    for name, shape in NUMERIC.items():
        part = np.asarray(arrays[name], dtype=np.float32)
        if part.shape != shape or not np.isfinite(part).all():
            raise ValueError(f"{name} must be finite and of shape {shape}, not {part.shape}")
        parts.append(part.ravel())
    return np.concatenate(parts)


def unpack(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Views of the arrays in vectors `... NUMERIC_SIZE`: each `... *shape`."""
    arrays, start = {}, 0
    for name, shape in NUMERIC.items():
        size = int(np.prod(shape))
        arrays[name] = vectors[..., start : start + size].reshape(*vectors.shape[:-1], *shape)
        start += size
    return arrays


def encode_arrays(arrays: dict[str, np.ndarray]) -> bytes:
    """The `.npy` member of a sample."""
    stream = io.BytesIO()
    np.save(stream, pack(arrays), allow_pickle=False)
    return stream.getvalue()


def decode_vector(data: bytes) -> np.ndarray:
    """The float32 vector inside a `.npy` member.

    Raises:
        ValueError: not a `.npy`, or not a vector of this format's size.
    """
    vector = np.load(io.BytesIO(data), allow_pickle=False)
    if vector.shape != (NUMERIC_SIZE,) or vector.dtype != np.float32:
        raise ValueError(f"expected float32 of ({NUMERIC_SIZE},), found {vector.dtype} of {vector.shape}")
    return vector


def decode_names(data: bytes) -> Names:
    """The names inside a `.json` member; fields of later versions are passed over."""
    fields = json.loads(data)
    return Names(**{name: fields[name] for name in Names.__dataclass_fields__ if name in fields})
