"""What runs keep without need: listed, and deleted only on demand. No torch here.

- Checkpoints of a finished run, but for the newest whole ones and the best one.
- What interrupted writes have left behind.
- Copies of code of a finished run, but for the newest.

A run that is being trained is never touched, nor one that may be resumed (stopped, failed, killed) beyond what its
interrupted writes left; and never a file that is not in this list, model.safetensors above all.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from cluster.checkpoint_names import CHECKPOINTS, PARTIAL, by_step, checkpoint_name, step_of
from cluster.run_folder import held
from cluster.runs import RunState, amount, find_runs, read_state
from cluster.snapshot import CODE
from poselib.errors import InputError
from poselib.settings import check_at_least
from shards.atomic import TEMPORARY

_COMPLETE: Final = "complete.json"


@dataclass(frozen=True)
class GcSettings:
    """List what old runs could free; delete it with `--apply true`.

    Attributes:
        runs_dir: where the runs are; searches below it are looked through too.
        apply: delete what is listed.
        keep: how many of a finished run's newest checkpoints stay, besides the best one.
        idle_h: leftovers of interrupted writes stay for so many hours; somebody may still write.
    """

    runs_dir: Path = Path("runs")
    apply: bool = False
    keep: int = 1
    idle_h: float = 1.0

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 1, "keep")
        check_at_least(self, 0, "idle_h")


@dataclass(frozen=True)
class Garbage:
    """Something that no run needs.

    Attributes:
        path: a file, or a folder with all in it.
        what: why it is not needed.
        size: bytes.
    """

    path: Path
    what: str
    size: int


def collect_garbage(settings: GcSettings) -> None:
    """`pose runs gc`: print what could be freed, and with `apply` free it.

    Raises:
        InputError: there is no such folder, or something cannot be deleted.
    """
    console = Console()
    found = {folder: garbage(read_state(folder), settings) for folder in find_runs(settings.runs_dir)}
    found = {folder: items for folder, items in found.items() if items}
    if not found:
        console.print(f"nothing to free in {settings.runs_dir}", highlight=False, soft_wrap=True)
        return
    _show(found, settings.runs_dir, console)
    total = sum(item.size for items in found.values() for item in items)
    if not settings.apply:
        line = f"{amount(total)} could be freed; to delete this: pose runs gc {settings.runs_dir} --apply true"
        console.print(line, highlight=False, soft_wrap=True)
        return
    freed = 0
    for folder in track(found, "deleting", console=console, transient=True, disable=not console.is_terminal):
        freed += _free(folder, settings, console)
    console.print(f"{amount(freed)} freed in {settings.runs_dir}", highlight=False, soft_wrap=True)


def garbage(run: RunState, settings: GcSettings) -> list[Garbage]:
    """What the run does not need; nothing while it is trained."""
    if run.state == "running":
        return []
    old = time.time() - 3600 * settings.idle_h
    items = [(path, "interrupted write") for path in _leftovers(run.folder) if _changed(path) <= old]
    if run.state == "finished":
        items += [(path, "old checkpoint") for path in _spare_checkpoints(run, settings.keep)]
        copies = sorted((path for path in (run.folder / CODE).glob("[!.]*") if path.is_dir()), key=_changed)
        items += [(path, "old code") for path in copies[:-1]]
    return [Garbage(path, what, _size(path)) for path, what in items if not path.is_symlink()]


def _free(folder: Path, settings: GcSettings, console: Console) -> int:
    """Delete a run's garbage while nobody can start to train it; returns the bytes."""
    # Looking needs no lock and leaves no trace; deleting looks again, under the lock of the run.
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder))
        except InputError as error:
            console.print(f"left alone: {error}", highlight=False, soft_wrap=True)
            return 0
        items = garbage(read_state(folder, mine=True), settings)
        for item in items:
            _delete(item.path)
    return sum(item.size for item in items)


def _leftovers(folder: Path) -> Iterator[Path]:
    """What interrupted writes have left."""
    yield from sorted((folder / CHECKPOINTS).glob(PARTIAL))
    for place in (folder, folder / CHECKPOINTS, folder / CODE):
        yield from sorted(place.glob(TEMPORARY))


def _spare_checkpoints(run: RunState, keep: int) -> list[Path]:
    """Checkpoints besides the newest whole ones and the best; none where no whole one is found."""
    found = list(by_step(run.folder / CHECKPOINTS).values())
    whole = [path for path in found if _looks_whole(path)][-keep:]
    if not whole:
        return []
    kept = {*whole, run.folder / CHECKPOINTS / checkpoint_name(run.best_step)}
    return [path for path in found if path not in kept]


def _looks_whole(checkpoint: Path) -> bool:
    """Whether every file is there in its size; hashes are looked at when it is loaded."""
    try:
        files = json.loads((checkpoint / _COMPLETE).read_text())["files"]
        return all((checkpoint / name).stat().st_size == record["bytes"] for name, record in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _delete(path: Path) -> None:
    """Delete; a checkpoint first loses its name, so that none is ever half there."""
    try:
        if not path.is_dir():
            path.unlink()
            return
        if step_of(path) is not None:
            path = path.rename(path.with_name(f"{path.name}.gc.partial"))
        shutil.rmtree(path)
    except OSError as error:
        raise InputError(f"{path} cannot be deleted: {error.strerror}") from error


def _show(found: dict[Path, list[Garbage]], runs_dir: Path, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("run", "what"):
        table.add_column(column, overflow="fold")
    for column in ("count", "size"):
        table.add_column(column, justify="right")
    for folder, items in found.items():
        for what in dict.fromkeys(item.what for item in items):
            some = [item for item in items if item.what == what]
            name = escape(str(folder.relative_to(runs_dir)))
            table.add_row(name, what, str(len(some)), amount(sum(item.size for item in some)))
    console.print(table)


def _changed(path: Path) -> float:
    return path.lstat().st_mtime


def _size(path: Path) -> int:
    files = [path] if not path.is_dir() else [file for file in path.rglob("*") if not file.is_dir()]
    return sum(file.lstat().st_size for file in files)
