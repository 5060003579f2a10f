"""What a shard set says of itself: the records inside `manifest.json`."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from poselib.errors import InputError
from shards.sample import FORMAT_VERSION

_ADDED: Final = frozenset({"split"})
"""Fields of the manifest that the first sets of this format version do not have."""


@dataclass(frozen=True)
class Skipped:
    """A piece of damaged input that is not in the set.

    Attributes:
        file: path below the raw folder.
        frame: the frame, counted from 0; -1 for a whole file.
        reason: what is wrong with it.
        samples: how many samples were lost.
    """

    file: str
    frame: int
    reason: str
    samples: int = 1

    def __str__(self) -> str:
        """One line for messages."""
        place = self.file if self.frame < 0 else f"{self.file}, frame {self.frame}"
        return f"{place}: {self.reason}"


@dataclass(frozen=True)
class Shard:
    """One tar of a set, with its size and SHA-256."""

    file: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`. It depends on the raw data and the settings alone: not on folders, workers or time.

    Attributes:
        format_version: of `shards.sample`.
        kind: `people` or `occluders`.
        source: the reader's name: h36m, mpii or voc.
        synthetic: whether the raw data came from the embedded studio.
        settings: the build settings that shape the content.
        lens, box, cover_width, cover_height, stored_px: the same, for quick looks.
        numeric: shapes of the arrays in each `.npy`, in order.
        samples: how many the set holds.
        subjects, actions, cameras, parts: names behind the codes of `samples.npy`.
        counts: samples per subject, action, camera and part.
        shards: the tars, in the order of `samples.npy`.
        index_sha256: of `samples.npy`.
        skipped: damaged input that is not in the set.
        known_faults: faults of the published data and how they were handled.
        split: how training and validation parts were told apart; empty where there are none.
        set_hash: of the settings and all shards; names the set on every score.
    """

    format_version: int
    kind: str
    source: str
    synthetic: bool
    settings: dict[str, Any]
    lens: str
    box: str
    cover_width: float
    cover_height: float
    stored_px: int
    numeric: dict[str, list[int]]
    samples: int
    subjects: tuple[str, ...]
    actions: tuple[str, ...]
    cameras: tuple[str, ...]
    parts: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    shards: tuple[Shard, ...]
    index_sha256: str
    skipped: tuple[Skipped, ...]
    known_faults: tuple[str, ...]
    split: str
    set_hash: str

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`."""
        return (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode()


def read_manifest(path: Path) -> Manifest:
    """Read a `manifest.json`; errors as in `parse_manifest`."""
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(content: bytes, path: str) -> Manifest:
    """The manifest in the bytes of a `manifest.json`.

    Args:
        content: of the file.
        path: of the file, for messages.

    Raises:
        InputError: not JSON, of another format version, or without the fields of this one: damaged, or an early one.
    """
    try:
        fields = json.loads(content)
        version = fields["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); build the set again in an empty folder") from error
    if version != FORMAT_VERSION:
        raise InputError(f"{path} has format version {version}, this program reads {FORMAT_VERSION}: build it again")
    known = {field.name for field in dataclasses.fields(Manifest)}
    missing = known - fields.keys()
    if missing and missing <= _ADDED:
        raise InputError(
            f"{path} is whole, but from an early version of this program, which did not write"
            f" {', '.join(sorted(missing))}: build the set again in an empty folder"
        )
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    try:
        fields["shards"] = tuple(Shard(**shard) for shard in fields["shards"])
        fields["skipped"] = tuple(Skipped(**skipped) for skipped in fields["skipped"])
        return Manifest(**{name: value for name, value in fields.items() if name in known})
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); build the set again in an empty folder") from error


def hash_set(settings: dict[str, Any], shards: Iterable[Shard]) -> str:
    """SHA-256 over the settings and all shards' hashes, in order, as hexadecimal text."""
    content = [settings, [(shard.file, shard.sha256) for shard in shards]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
