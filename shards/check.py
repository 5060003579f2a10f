"""A look through raw data before anything is built: what it holds, how it is understood, what is wrong with it.

All annotations are read; of the pictures, the first frames of some recordings, which are cropped as a build would crop
them and drawn with their skeletons on one sheet: what a person sees there is what a network would learn.
"""

import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from poselib.drawing import contact_sheet, draw_skeleton
from poselib.errors import InputError
from shards.atomic import write_whole
from shards.build import ALLOWED_SKIPS
from shards.crop import crop_person
from shards.occluders import Occluder
from shards.readers import find_reader
from shards.records import Skipped
from shards.settings import BuildSettings, CheckSettings
from shards.source import Part, Person, Reader, is_synthetic
from shards.table import natural_order

FIRST_FRAME_ONLY: Final = 10**9
SHEET_COLUMNS: Final = 6
SHEET_PX: Final = 240
DAMAGE_SHOWN: Final = 20

Item = Person | Occluder
_Any = TypeVar("_Any")


@dataclass(frozen=True)
class CheckReport:
    """What a raw folder holds.

    Attributes:
        raw: the folder.
        source: name of the data set.
        layout: how it is laid out.
        synthetic: whether the studio made it.
        counts: samples that a build would take, by subject (or part), action and camera.
        notes: how cameras were read, and of how many recordings and cameras that holds.
        lens: what the layout knows of the lens; empty where there are no cameras.
        faults: known faults that concern it, and what a build does about them by default.
        split: how training and validation parts were told apart.
        damage: what is missing or wrong, in all annotations and in the pictures that were read.
        pictures: how many people or objects were read.
        sheet: the picture that shows them; None where there was nothing to show.
    """

    raw: Path
    source: str
    layout: str
    synthetic: bool
    counts: dict[tuple[str, str, str], int]
    notes: dict[str, int]
    lens: str
    faults: tuple[str, ...]
    split: str
    damage: tuple[Skipped, ...]
    pictures: int
    sheet: Path | None


def check_raw(settings: CheckSettings) -> CheckReport:
    """Look through a raw folder; nothing but the sheet is written.

    Raises:
        InputError: no known layout, annotations that cannot be read, of another unit or joint order, or a camera that
            puts the poses beside the picture.
    """
    build = _build_settings(settings)
    layout, reader = find_reader(build)
    parts = reader.parts(build)
    counts: Counter[tuple[str, str, str]] = Counter()
    notes: Counter[str] = Counter()
    damage: list[Skipped] = []
    for part in _shown(parts, f"{settings.raw}: annotations"):
        survey = reader.survey(build, part)
        counts.update(survey.counts)
        notes.update(survey.notes)
        damage += survey.damage
    items, met = _sample(build, reader, parts, settings.pictures)
    damage += [skip for skip in met if skip not in damage]
    return CheckReport(
        raw=settings.raw,
        source=reader.source,
        layout=layout,
        synthetic=is_synthetic(settings.raw),
        counts=dict(counts),
        notes=dict(notes),
        lens=_lens(items),
        faults=reader.faults(build),
        split=reader.split(build),
        damage=tuple(damage),
        pictures=len(items),
        sheet=_write_sheet(settings.sheet, items, build),
    )


def describe(report: CheckReport) -> Iterator[str | Table]:
    """The report, piece by piece, for the console."""
    origin = ", synthetic" if report.synthetic else ""
    what = "pictures that may hold objects" if report.source == "voc" else "samples"
    yield f"{report.raw}: {report.source}{origin}, layout {report.layout}, {sum(report.counts.values())} {what}"
    yield _table(report.counts)
    for note, count in sorted(report.notes.items()):
        yield f"cameras, told by projecting poses: {note} in {count} views"
    if report.lens:
        yield f"lens: {report.lens}"
    if report.split:
        yield f"split: {report.split}"
    for fault in report.faults:
        yield f"known fault: {fault}"
    for skip in report.damage[:DAMAGE_SHOWN]:
        yield f"damaged: {skip}"
    if len(report.damage) > DAMAGE_SHOWN:
        yield f"damaged: {len(report.damage) - DAMAGE_SHOWN} more"
    if not report.damage:
        yield f"no damage found in the annotations and {report.pictures} pictures"
    if report.sheet:
        what = (
            "every object must be cut out whole" if report.source == "voc" else "every skeleton must lie on its person"
        )
        yield f"look at {report.sheet}: {what}; next: pose shards build {report.raw} OUT"


def check_share(report: CheckReport) -> None:
    """Say before a build does that too much is damaged.

    Raises:
        InputError: more than 1 % is, as far as it was looked at.
    """
    lost = sum(skip.samples for skip in report.damage)
    total = sum(report.counts.values()) + lost
    if lost > ALLOWED_SKIPS * total:
        raise InputError(
            f"raw: {lost} of {total} samples in {report.raw} are damaged, more than {ALLOWED_SKIPS:.0%}: a build "
            f"would stop; repair them, the first: {report.damage[0]}"
        )


def _shown(items: Sequence[_Any], title: str) -> Iterator[_Any]:
    """The items, with a progress bar that leaves no trace."""
    console = Console(stderr=True)
    yield from track(items, title, console=console, transient=True, disable=not console.is_terminal)


def _build_settings(settings: CheckSettings) -> BuildSettings:
    """What a build of the same data would use; `out` is never written to."""
    return BuildSettings(
        raw=settings.raw,
        out=settings.sheet.parent,
        source=settings.source,
        layout=settings.layout,
        subjects=settings.subjects,
        box=settings.box,
        lens=settings.lens,
        mpii_map=settings.mpii_map,
        mpii_val_list=settings.mpii_val_list,
        every=settings.every,
        every_test=settings.every_test,
        stored_px=SHEET_PX,
    )


def _sample(build: BuildSettings, reader: Reader, parts: list[Part], wanted: int) -> tuple[list[Item], list[Skipped]]:
    """Up to `wanted` people or objects, spread over parts and their cameras, and the damage met on the way."""
    chosen = sorted({int(place) for place in np.linspace(0, len(parts) - 1, min(wanted, len(parts)))})
    each = math.ceil(wanted / len(chosen))
    items: list[Item] = []
    damage: list[Skipped] = []
    sparse = replace(build, every=FIRST_FRAME_ONLY, every_test=0)  # decoding on would take minutes
    for number, place in enumerate(_shown(chosen, f"{build.raw}: pictures")):
        read = list(islice(reader.read(sparse, parts[place]), each * 8))
        damage += [item for item in read if isinstance(item, Skipped)]
        usable = [item for item in read if not isinstance(item, Skipped)]
        turned = usable[number % len(usable) :] + usable[: number % len(usable)] if usable else []
        items += turned[: min(each, wanted - len(items))]
    return items, damage


def _lens(items: list[Item]) -> str:
    people = [item for item in items if isinstance(item, Person) and item.intrinsics.any()]
    if not people:
        return ""
    if any(person.distortion.any() for person in people):
        return "distortion is stored: pinhole, brown and undistorted are possible"
    return "no distortion is stored: only pinhole is possible"


def _write_sheet(path: Path, items: list[Item], build: BuildSettings) -> Path | None:
    if not items:
        return None
    sheet = contact_sheet([_draw(item, build) for item in items], SHEET_COLUMNS, [_caption(item) for item in items])
    ok, data = cv2.imencode(path.suffix.lower(), sheet[..., ::-1])
    if not ok:
        raise ValueError(f"OpenCV could not encode {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data.tobytes())
    return path


def _draw(item: Item, build: BuildSettings) -> np.ndarray:
    """The stored picture of a person with the skeleton drawn, or an object on grey: uint8 `h w 3`, RGB."""
    if isinstance(item, Occluder):
        alpha = item.picture[..., 3:] / 255.0
        return np.rint(item.picture[..., :3] * alpha + 128 * (1 - alpha)).astype(np.uint8)
    try:
        sample = crop_person(item, build)
    except ValueError:  # a box too small to hold a person; the damage is named when it is built
        return np.full((SHEET_PX, SHEET_PX, 3), 128, np.uint8)
    picture = np.asarray(Image.open(io.BytesIO(sample.jpeg)))
    scale = SHEET_PX / max(picture.shape[:2])
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    known = item.supervised_px > 0
    return draw_skeleton(picture, sample.arrays["joints_px"] * scale, known)


def _caption(item: Item) -> str:
    names = item.names
    if not names.subject:
        return item.key
    return f"{names.subject} {names.action} {names.subaction} {names.camera} {names.frame}"


def _table(counts: dict[tuple[str, str, str], int]) -> Table:
    """Samples by subject and action, a column per camera; just by part of the set where there are none of these."""
    cameras = sorted({camera for _, _, camera in counts})
    if cameras == [""]:
        table = Table("part", "samples")
        for (part, _, _), count in sorted(counts.items()):
            table.add_row(part, str(count))
        return table
    table = Table("subject", "action", *cameras)
    rows = sorted({(subject, action) for subject, action, _ in counts}, key=lambda row: (natural_order(row[0]), row[1]))
    for subject, action in rows:
        table.add_row(subject, action, *(str(counts.get((subject, action, camera), 0)) for camera in cameras))
    return table
