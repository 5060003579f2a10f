"""Which of MPII's training pictures validate: a list of their names, or a stable hash of each name."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from poselib.errors import InputError
from shards.settings import BuildSettings

VALIDATION_ONE_IN: Final = 10
USUAL_LISTS: Final = ("annot/valid.json", "valid.json")
"""Where HRNet's list lies below the raw folder; it is taken if no other is named."""


@dataclass(frozen=True)
class ValidationList:
    """The pictures that validate, by file name."""

    path: Path
    names: frozenset[str]

    @property
    def sha256(self) -> str:
        """Of the sorted names, whatever file they came from."""
        return hashlib.sha256("\n".join(sorted(self.names)).encode()).hexdigest()

    def check_known(self, pictures: set[str]) -> None:
        """Refuse a list of another set of pictures.

        Raises:
            InputError: names a picture that is not among the training pictures.
        """
        unknown = sorted(self.names - pictures)
        if unknown:
            raise InputError(
                f"{self.path}: {len(unknown)} of {len(self.names)} validation pictures are no training pictures of "
                f"this set, the first: {unknown[0]}; a list of its own training pictures is needed"
            )


def find_list(settings: BuildSettings) -> ValidationList | None:
    """The list that the setting names, or the usual one if it lies below the raw folder, or None.

    Raises:
        InputError: the list cannot be read, or names no picture.
    """
    if settings.mpii_val_list is not None:
        return _read(settings.mpii_val_list)
    found = [settings.raw / name for name in USUAL_LISTS if (settings.raw / name).is_file()]
    return _read(found[0]) if found else None


def describe_split(listed: ValidationList | None) -> str:
    """One line for manifests."""
    if listed is None:
        return f"validation: one picture in {VALIDATION_ONE_IN}, by the SHA-256 of its name"
    return f"validation: the {len(listed.names)} pictures that {listed.path.name} names, SHA-256 {listed.sha256[:12]}"


def part_of(picture: str, listed: ValidationList | None) -> str:
    """`val` or `train`."""
    if listed is not None:
        return "val" if PurePosixPath(picture).name in listed.names else "train"
    digest = hashlib.sha256(picture.encode()).digest()
    return "val" if int.from_bytes(digest[:8], "big") % VALIDATION_ONE_IN == 0 else "train"


def _read(path: Path) -> ValidationList:
    wanted = "a text file of picture names, one a line, or a JSON list of objects with the key image"
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            entries = [entry["image"] for entry in json.loads(text)]
        else:
            entries = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        names = frozenset(PurePosixPath(entry).name for entry in entries)
    except OSError as error:
        raise InputError(f"{path}, the list of validation pictures, cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}, the list of validation pictures, must be {wanted} ({error!r})") from error
    if not names:
        raise InputError(f"{path}, the list of validation pictures, names none; it must be {wanted}")
    return ValidationList(path, names)
