"""What was scored, sample by sample: `NAME.npz` beside `NAME.json`, for reports and comparisons.

A NumPy archive without pickle; `n` samples in the order of the shard set, the same for every run on the same samples.

    format        int64, the version of this layout: 1
    keys          str `n`, the samples' keys in their tars
    rows          int64 `n`, their rows in the shard set's table: `ShardSet.read(row)` gives picture and truth
    subjects, actions, cameras, pictures  str `n`, what they are called
    frames        int64 `n`, numbers of their frames
    errors_mm     float32 `n`, MPJPE of each, all 17 joints
    predicted_mm  float32 `n 17 3`, root-relative, camera frame
    true_mm       float32 `n 17 3`, the same of the truth
    predicted_px  float32 `n 17 2`, px of the stored picture
    true_px       float32 `n 17 2`, the same of the truth
    spread_mm     float32 `n 17`, root of the summed variances of each heat map; NaN for a head without heat maps

`NAME.json` holds that file's SHA-256 as `samples_sha256`, so that a card never goes with the samples of another one.
"""

import csv
import hashlib
import io
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from poselib.errors import InputError
from poselib.skeleton import H36M_JOINTS

FORMAT_VERSION: Final = 1


@dataclass(frozen=True, eq=False)
class Samples:
    """The arrays of the module's docstring."""

    keys: np.ndarray
    rows: np.ndarray
    subjects: np.ndarray
    actions: np.ndarray
    cameras: np.ndarray
    pictures: np.ndarray
    frames: np.ndarray
    errors_mm: np.ndarray
    predicted_mm: np.ndarray
    true_mm: np.ndarray
    predicted_px: np.ndarray
    true_px: np.ndarray
    spread_mm: np.ndarray

    def __len__(self) -> int:
        """How many samples."""
        return len(self.keys)


def encode_samples(samples: Samples) -> bytes:
    """The file's content."""
    stream = io.BytesIO()
    arrays = {entry.name: getattr(samples, entry.name) for entry in fields(Samples)}
    np.savez_compressed(stream, allow_pickle=False, format=np.int64(FORMAT_VERSION), **arrays)
    return stream.getvalue()


def digest(content: bytes) -> str:
    """What a card says of its samples' file."""
    return hashlib.sha256(content).hexdigest()


def read_samples(card_path: Path, card: dict[str, Any]) -> Samples:
    """The samples behind a score card.

    Args:
        card_path: the card's `NAME.json`; the samples are read from `NAME.npz` beside it.
        card: its content.

    Raises:
        InputError: there is no such file, it is damaged, of another version, or of another evaluation.
    """
    path = card_path.with_suffix(".npz")
    advice = "run `pose eval` again"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the samples of this score cannot be read: {error.strerror}; {advice}") from error
    if digest(content) != card.get("samples_sha256"):
        raise InputError(f"{path}: not the samples of {card_path.name}; {advice}")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            if int(file["format"]) != FORMAT_VERSION:
                raise InputError(f"{path}: of format {int(file['format'])}, not {FORMAT_VERSION}; {advice}")
            return Samples(**{entry.name: file[entry.name] for entry in fields(Samples)})
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged ({error}); {advice}") from error


def leaderboard_csv(predicted_mm: np.ndarray) -> bytes:
    """Predictions as the ETH course's leaderboard takes them: CSV, `Id` and 51 numbers with four decimals.

    A line for each sample in the order of the shard set, `Id` from 0; x, y, z of the 17 joints in Human3.6M's order.

    Args:
        predicted_mm: `n 17 3`, root-relative, camera frame.
    """
    stream = io.StringIO()
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerow(["Id", *(f"{joint}_{axis}" for joint in H36M_JOINTS for axis in "xyz")])
    lines.writerows([number, *(f"{value:.4f}" for value in pose.ravel())] for number, pose in enumerate(predicted_mm))
    return stream.getvalue().encode()
