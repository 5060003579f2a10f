"""Make the studio's data: every raw layout, in parallel, the same whatever the number of workers."""

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from poselib.errors import InputError
from shards.atomic import write_whole
from shards.settings import StudioSettings
from shards.studio import human36m, mpii, voc
from shards.studio.body import load_bodies
from shards.studio.motion import ACTIONS

LAYOUT_VERSION: Final = 1
_CHUNK: Final = 20
_PARTS: Final = ("h36m", "mpii", "voc")
_README: Final = """\
Synthetic data, made by posecluster's studio. No real person is in it, and nothing was copied from any data set.
The folders use the raw on-disk layouts of other sets, so that the same readers take both:

  h36m/  the layout of Human3.6M (videos, pose files, metadata.xml)
  mpii/  the layout of MPII Human Pose (images, annotation file)
  voc/   the layout of PASCAL VOC 2012 (pictures, boxes, masks)

Bodies: MakeHuman's shapes (CC0). studio.json says which settings made this folder.
Motion in the videos is sampled every 0.5 s, although they are marked as 50 frames per second.
"""


@dataclass(frozen=True)
class Task:
    """A piece of work for one worker, and how many pictures it makes."""

    part: str
    names: tuple[str, ...] = ()
    first: int = 0
    count: int = 0


def make_studio(settings: StudioSettings) -> None:
    """Write `h36m/`, `mpii/` and `voc/` below `settings.out`, and `studio.json` last.

    A finished folder of equal settings is left as it is; an interrupted one is resumed.

    Raises:
        InputError: an unknown subject or action, or a folder that holds something else.
    """
    _check(settings)
    record = _record(settings)
    if not _begin(settings.out, record):
        return
    if settings.subjects:
        human36m.write_metadata(settings)
    tasks = _tasks(settings)
    with _progress(sum(task.count for task in tasks)) as advance:
        for made in _run(settings, tasks):
            advance(made)
    if settings.mpii_pictures:
        mpii.write_annotations(settings)
    if settings.voc_pictures:
        voc.write_lists(settings)
    write_whole(settings.out / "README.txt", _README.encode())
    write_whole(settings.out / "studio.json", record.encode())
    _begun(settings.out).unlink(missing_ok=True)


def _check(settings: StudioSettings) -> None:
    """Refuse names that the studio does not have."""
    known = {"subjects": [name for name in load_bodies() if name in human36m.SUBJECTS], "actions": list(ACTIONS)}
    for key, names in known.items():
        unknown = [name for name in getattr(settings, key) if name not in names]
        if unknown:
            raise InputError(f"{key}: the studio has no {', '.join(unknown)}; it has {', '.join(names)}")


def _record(settings: StudioSettings) -> str:
    """What `studio.json` says. The folder and the number of workers change no picture."""
    chosen: dict[str, Any] = {key: value for key, value in asdict(settings).items() if key not in ("out", "workers")}
    layouts = {
        "h36m": "Human3.6M, official release: D3_Positions cdf, Videos mp4, metadata.xml",
        "mpii": "MPII Human Pose: images, mpii_human_pose_v1_u12_1.mat",
        "voc": "PASCAL VOC 2012: JPEGImages, Annotations, SegmentationObject",
    }
    record = {"synthetic": True, "version": LAYOUT_VERSION, "settings": chosen, "layouts": layouts}
    return json.dumps(record, indent=2, sort_keys=True) + "\n"


def _begun(out: Path) -> Path:
    """The file that marks a folder as being made."""
    return out / ".studio-begun.json"


def _begin(out: Path, record: str) -> bool:
    """Mark the folder as being made; False if it is finished already.

    Raises:
        InputError: the folder holds other settings' data, or data that the studio did not make.
    """
    finished, begun = out / "studio.json", _begun(out)
    for path in (finished, begun):
        if path.is_file():
            if path.read_text(encoding="utf-8") == record:
                return path is begun
            raise InputError(f"{path}: made with other settings; give another `out` or remove that folder")
    foreign = [part for part in _PARTS if (out / part).exists()]
    if foreign:
        raise InputError(f"{out / foreign[0]}: exists, but the studio did not make it; give another `out`")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(begun, record.encode())
    return True


def _tasks(settings: StudioSettings) -> list[Task]:
    """Everything to do, long tasks first."""
    films = settings.frames * settings.cameras
    actions = settings.actions or ACTIONS
    tasks = [Task("h36m", (subject, action), count=films) for subject in settings.subjects for action in actions]
    for part, total in (("mpii", settings.mpii_pictures), ("voc", settings.voc_pictures)):
        tasks += [Task(part, first=first, count=min(_CHUNK, total - first)) for first in range(0, total, _CHUNK)]
    return tasks


def _perform(settings: StudioSettings, task: Task) -> int:
    """Do one task, in whichever process; returns how many pictures it made."""
    if task.part == "h36m":
        return human36m.film(settings, *task.names)
    write = {"mpii": mpii.write_picture, "voc": voc.write_picture}[task.part]
    for number in range(task.first, task.first + task.count):
        write(settings, number)
    return task.count


def _start_worker() -> None:
    """Keep to one core, let the parent answer Ctrl-C, and leave when it is gone: a worker would wait for ever."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def leave() -> None:
        if parent:
            parent.join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def _run(settings: StudioSettings, tasks: list[Task]) -> Iterator[int]:
    """Do every task; yields how many pictures each made, in no order."""
    workers = min(settings.workers or len(os.sched_getaffinity(0)), len(tasks))
    if workers <= 1:
        yield from (_perform(settings, task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        futures = [pool.submit(_perform, settings, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A progress bar over pictures; hands out the function that moves it."""
    columns = (TextColumn("studio"), BarColumn(), MofNCompleteColumn(), TextColumn("pictures"), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("studio", total=total)
        yield lambda made: progress.advance(bar, made)
