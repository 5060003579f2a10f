"""`pose predict`: reading, the network, and writing go on side by side, in the order of the inputs."""

import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import torch
from rich.console import Console

from cluster.predict.boxes import BoxFinder, Found, read_boxes
from cluster.predict.camera import Camera, camera_of
from cluster.predict.crops import Crops
from cluster.predict.detector import torchvision_detector
from cluster.predict.flow import Shown, ahead, one_ahead
from cluster.predict.inputs import Item, count_items, find_inputs, read_items
from cluster.predict.outputs import OVERLAYS, Overlays, PosesFile, described, person
from cluster.predict.pictures import Photo, open_photo
from cluster.predict.poses import Answers, Pose, Predictor, Seen
from cluster.predict.settings import PredictSettings
from poselib.errors import InputError

_HELD_BYTES: Final = 2**29
"""Pixels that wait for the network at most, beside a batch's first picture."""
_MOST_WORKERS: Final = 16


class LeftOut(InputError):
    """Some inputs could not be used; the poses of all others are written."""

    exit_code = 3


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture, its people's boxes and crops; or only a problem, in `item`."""

    item: Item
    photo: Photo
    found: Found
    crops: Crops
    camera: Camera


@dataclass
class Counts:
    """What the last line tells."""

    pictures: int = 0
    people: int = 0
    default_focal: int = 0
    left_out: int = 0


def predict(settings: PredictSettings) -> None:
    """`pose predict`: poses of everything that the inputs name, in `out`.

    Raises:
        LeftOut: at the end, where an input could not be used.
        InputError: nothing could begin: no run, no boxes to read, no detector.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    predictor = Predictor.load(
        settings.run,
        weights=settings.weights,
        aspect=settings.aspect,
        device=settings.device,
        flip_test=settings.flip_test,
        batch=settings.batch,
    )
    counts, drawn = predict_inputs(settings, predictor)
    _conclude(settings, predictor, counts, drawn)


def predict_inputs(settings: PredictSettings, predictor: Predictor) -> tuple[Counts, bool]:
    """Everything that the inputs name; what was done, and whether overlays were drawn."""
    finder = box_finder(settings, predictor.device)
    inputs, problems = find_inputs(settings.inputs, settings.out / OVERLAYS)
    settings.out.mkdir(parents=True, exist_ok=True)
    workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
    counts, console = Counts(), Console(stderr=True)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(workers, "pictures"))
        writing, gathering = (stack.enter_context(ThreadPoolExecutor(1, name)) for name in ("writing", "gathering"))
        poses = stack.enter_context(PosesFile(settings.out, predictor.description))
        overlays = stack.enter_context(Overlays(settings.out, settings.overlays, settings.video, settings.every, pool))
        shown = stack.enter_context(Shown(console, count_items(inputs, settings.every)))
        desk = Desk(settings, predictor, poses, overlays, shown, counts)
        for line in problems:
            desk.leave_out(line)
        if unused := finder.unused(one.name for one in inputs):
            shown.say(f"{settings.boxes}: no input is called {', '.join(unused[:3])}{' ...' if unused[3:] else ''}")
        items = read_items(inputs, settings.every, settings.max_pixels)
        prepared = ahead(pool, partial(prepare, settings, predictor, finder), items, workers + 2)
        written: Future[None] | None = None
        for group in one_ahead(gathering, gather(prepared, settings.batch)):
            answers = predictor.answer(np.concatenate([one.crops.pixels for one in group]))
            if written is not None:
                written.result()
            written = writing.submit(desk.deliver, group, answers)
        if written is not None:
            written.result()
    return counts, bool(overlays.written)


def box_finder(settings: PredictSettings, device: torch.device) -> BoxFinder:
    """Where people are, by the settings."""
    scale = settings.box_scale
    if settings.box is not None:
        return BoxFinder(box=np.array([settings.box]), scale=scale)
    if settings.boxes is not None:
        return BoxFinder(table=read_boxes(settings.boxes), scale=scale)
    if settings.detector == "torchvision" and settings.detector_weights is not None:
        return BoxFinder(detector=torchvision_detector(settings.detector_weights, device), scale=scale)
    return BoxFinder()


def prepare(settings: PredictSettings, predictor: Predictor, finder: BoxFinder, item: Item) -> Prepared:
    """Read a picture, find its people, cut their crops; what is wrong with it goes along."""
    photo, nobody = Photo(np.empty((0, 0, 3), np.uint8)), Found(np.empty((0, 4)), "")
    if not item.problem:
        try:
            photo = _photo(settings, item)
        except InputError as error:
            item = replace(item, problem=str(error))
    if item.problem:
        none = np.empty((0, predictor.model.crop_height, predictor.model.crop_width, 3), np.uint8)
        camera = Camera(np.zeros(4), "")
        return Prepared(replace(item, pixels=None), photo, nobody, Crops(none, np.empty((0, 2, 3))), camera)
    found = finder.find(photo.pixels, item.source.name, item.frame)
    crops = predictor.cut(photo.pixels, found.boxes, found.scale)
    return Prepared(item, photo, found, crops, camera_of(photo.pixels, photo.focal_px, settings))


def _photo(settings: PredictSettings, item: Item) -> Photo:
    if item.pixels is not None:
        return Photo(item.pixels)
    source = item.source.path if item.source.path is not None else sys.stdin.buffer.read()
    return open_photo(source, item.source.name, settings.max_pixels)


class Desk:
    """Where poses are written; one thread at a time works here."""

    def __init__(
        self,
        settings: PredictSettings,
        predictor: Predictor,
        poses: PosesFile,
        overlays: Overlays,
        shown: Shown,
        counts: Counts,
    ) -> None:
        self.settings, self.predictor, self.poses = settings, predictor, poses
        self.overlays, self.shown, self.counts = overlays, shown, counts

    def deliver(self, group: list[Prepared], answers: Answers) -> None:
        """Write a group's poses, in its order."""
        seen = [Seen(one.found.boxes, one.crops, one.camera) for one in group]
        for one, people in zip(group, self.predictor.poses(answers, seen, self.settings), strict=True):
            for line in (one.item.problem, *one.found.problems):
                if line:
                    self.leave_out(line)
            if not one.item.problem:
                self._write(one, people)
            self.shown.advance()
        self.overlays.wait()

    def leave_out(self, line: str) -> None:
        """Say so, now and in the file."""
        self.counts.left_out += 1
        self.poses.leave_out(line)
        self.shown.say(f"left out: {line}")

    def _write(self, one: Prepared, people: list[Pose]) -> None:
        height, width = one.photo.pixels.shape[:2]
        entries = [person(pose, one.found.origin) for pose in people]
        name, item = one.item.source.name, one.item
        self.poses.add(described(name, item.frame, (width, height), one.camera, entries))
        if item.frame is None:
            self.overlays.add_picture(name, one.photo.pixels, people)
        elif item.source.path is not None:
            self.overlays.add_frame(item.source.path, name, one.photo.pixels, people)
        self.counts.pictures += 1
        self.counts.people += len(people)
        self.counts.default_focal += one.camera.origin == "default"


def gather(prepared: Iterable[Prepared], batch: int) -> Iterator[list[Prepared]]:
    """Pictures until they fill a batch, or the memory meant for them."""
    group: list[Prepared] = []
    crops = held = 0
    for one in prepared:
        group.append(one)
        crops += len(one.crops.pixels)
        held += one.photo.pixels.nbytes
        if crops >= batch or held >= _HELD_BYTES:
            yield group
            group, crops, held = [], 0, 0
    if group:
        yield group


def _conclude(settings: PredictSettings, predictor: Predictor, counts: Counts, drawn: bool) -> None:
    """What was assumed, what was made, and what was left out."""
    console = Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    if counts.people and predictor.box == "root2000" and settings.box_scale != 1:
        say(
            "this run saw squares of 2000 mm about the pelvis and is less accurate on other boxes; give such squares"
            " with --box_scale 1, or train on shards built with --box tight"
        )
    if counts.people and not settings.root_depth_mm:
        say(
            "root depths are estimates from the lengths of arms and legs, for people"
            f" {settings.stature_mm:g} mm tall; --root_depth_mm gives the true one"
        )
    if counts.default_focal:
        say(
            f"{counts.default_focal} pictures do not say their focal length: {settings.fov_deg:g} degrees along the"
            " longer side were assumed; --focal_px gives it"
        )
    where = f", drawn in {settings.out / OVERLAYS}" if drawn else ""
    say(f"{counts.people} people in {counts.pictures} pictures: {settings.out / 'poses.json'}{where}")
    if counts.left_out:
        raise LeftOut(f"{counts.left_out} left out, each named above and in {settings.out / 'poses.json'}")
