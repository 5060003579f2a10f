"""Write objects with exact masks in PASCAL VOC 2012's raw layout.

JPEGImages/2012_000001.jpg
Annotations/2012_000001.xml          boxes, `truncated`, `difficult`
SegmentationObject/2012_000001.png   palette PNG: n for the n-th object of the xml, 255 for borders, 0 elsewhere
ImageSets/Segmentation/trainval.txt
"""

import io
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from PIL import Image

from shards.atomic import write_whole
from shards.settings import StudioSettings
from shards.studio.body import load_bodies
from shards.studio.cameras import still_camera
from shards.studio.clothes import draw_dress
from shards.studio.motion import ACTIONS, draw_clip
from shards.studio.objects import paint_object
from shards.studio.raycast import ROOM_FACES
from shards.studio.render import draw_person, to_bytes
from shards.studio.scene import Prop, draw_backdrop, draw_seat, draw_table
from shards.studio.staging import stage

_BORDER: Final = 255
_LEAST_AREA: Final = 60
_QUALITY: Final = 93


@dataclass(frozen=True, eq=False)
class Annotated:
    """A picture `h w 3` uint8 RGB, names of its objects, and `h w` int32: 0, or one more than an object's number."""

    picture: np.ndarray
    names: tuple[str, ...]
    objects: np.ndarray


def picture_name(number: int) -> str:
    """The stem of a picture's files, counted from 0."""
    return f"2012_{number + 1:06d}"


def draw_picture(settings: StudioSettings, number: int) -> Annotated:
    """Draw one picture: furniture in a room, sometimes a person, and things in front."""
    rng = np.random.default_rng([settings.seed, 30, number])
    names, props = [], []
    for _ in range(rng.integers(1, 3)):
        place, facing = rng.uniform(-700, 700, 2), rng.uniform(0, 2 * np.pi)
        is_chair = rng.random() < 0.6
        names.append("chair" if is_chair else "diningtable")
        props.append(
            draw_seat(rng, place, rng.uniform(380, 480), facing) if is_chair else draw_table(rng, place, facing)
        )
    camera = still_camera(rng, np.array([0, 0, 500.0]), 1100, (0.4, 0.9))
    backdrop = draw_backdrop(rng, camera, tuple(props))
    objects = _owners(props)[backdrop.surface]
    picture = backdrop.picture.copy()
    if rng.random() < 0.35:
        body = load_bodies()[rng.choice(sorted(load_bodies()))]
        take = stage(rng, body, draw_dress(rng, body, rng), draw_clip(rng, rng.choice(ACTIONS), 1))
        coverage = draw_person(picture, backdrop, camera, take.dress, body.faces, take.vertices[0])
        names.append("person")
        objects[coverage > 0.5] = len(names)
    for _ in range(rng.integers(1, 4)):
        name, mask = paint_object(rng, picture)
        names.append(name)
        objects[mask] = len(names)
    return _only_visible(to_bytes(picture), names, objects)


def _owners(props: list[Prop]) -> np.ndarray:
    """For each surface that a ray may hit, the object it belongs to: 0 for the room and its furniture."""
    owners = np.zeros(1 << 10, np.int32)
    first = ROOM_FACES
    for number, prop in enumerate(props, start=1):
        owners[first : first + len(prop.boxes)] = number
        first += len(prop.boxes)
    return owners


def _only_visible(picture: np.ndarray, names: list[str], objects: np.ndarray) -> Annotated:
    """Leave out objects of which next to nothing is seen, and count the others anew."""
    kept = [n for n in range(1, len(names) + 1) if np.count_nonzero(objects == n) >= _LEAST_AREA]
    renumber = np.zeros(len(names) + 1, np.int32)
    renumber[kept] = np.arange(1, len(kept) + 1)
    return Annotated(picture, tuple(names[n - 1] for n in kept), renumber[objects])


def write_picture(settings: StudioSettings, number: int) -> None:
    """Draw one picture and write its three files, unless they are there."""
    root, stem = settings.out / "voc", picture_name(number)
    picture_file = root / "JPEGImages" / f"{stem}.jpg"
    mask_file = root / "SegmentationObject" / f"{stem}.png"
    xml_file = root / "Annotations" / f"{stem}.xml"
    if all(path.is_file() for path in (picture_file, mask_file, xml_file)):
        return
    drawn = draw_picture(settings, number)
    _, data = cv2.imencode(".jpg", drawn.picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    mask = io.BytesIO()
    _palette_picture(drawn).save(mask, format="png")
    difficult = np.random.default_rng([settings.seed, 31, number]).random(len(drawn.names)) < 0.08
    xml = ET.tostring(_annotation(drawn, stem, difficult), encoding="utf-8")
    for path, content in ((picture_file, data.tobytes()), (mask_file, mask.getvalue()), (xml_file, xml)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)


def _palette_picture(drawn: Annotated) -> Image.Image:
    """Object numbers as a palette picture, with borders of 255 around the objects."""
    numbers = drawn.objects.astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    numbers[cv2.dilate(numbers, kernel) != cv2.erode(numbers, kernel)] = _BORDER
    picture = Image.new("P", (numbers.shape[1], numbers.shape[0]))
    picture.frombytes(numbers.tobytes())
    picture.putpalette(_palette())
    return picture


def _palette() -> list[int]:
    """VOC's colours: the bits of an index spread over red, green and blue, highest first."""
    colours = np.zeros((256, 3), int)
    for index in range(256):
        for bit in range(8):
            colours[index, bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
    return [int(value) for value in colours.ravel()]


def _annotation(drawn: Annotated, stem: str, difficult: np.ndarray) -> ET.Element:
    """The xml of a picture."""
    height, width = drawn.objects.shape
    root = ET.Element("annotation")
    for key, text in (("folder", "VOC2012"), ("filename", f"{stem}.jpg")):
        ET.SubElement(root, key).text = text
    ET.SubElement(ET.SubElement(root, "source"), "database").text = "synthetic"
    size = ET.SubElement(root, "size")
    for key, value in (("width", width), ("height", height), ("depth", 3)):
        ET.SubElement(size, key).text = str(value)
    ET.SubElement(root, "segmented").text = "1"
    for number, name in enumerate(drawn.names, start=1):
        rows, columns = np.nonzero(drawn.objects == number)
        low, high = (columns.min() + 1, rows.min() + 1), (columns.max() + 1, rows.max() + 1)
        truncated = low[0] == 1 or low[1] == 1 or high[0] == width or high[1] == height
        element = ET.SubElement(root, "object")
        flags = (("truncated", truncated), ("difficult", difficult[number - 1]))
        for key, text in (("name", name), ("pose", "Unspecified"), *((key, str(int(flag))) for key, flag in flags)):
            ET.SubElement(element, key).text = text
        corners = ET.SubElement(element, "bndbox")
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (*low, *high), strict=True):
            ET.SubElement(corners, key).text = str(value)
    ET.indent(root)
    return root


def write_lists(settings: StudioSettings) -> None:
    """The list of all pictures."""
    stems = "".join(f"{picture_name(number)}\n" for number in range(settings.voc_pictures))
    path = settings.out / "voc" / "ImageSets" / "Segmentation" / "trainval.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, stems.encode())
