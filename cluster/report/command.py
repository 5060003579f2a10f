"""`pose report`: scored runs to one HTML page."""

from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import track

from cluster.report.figures import compare, measure
from cluster.report.gallery import Photo, choose, open_shards, read_photo, side_px
from cluster.report.page import Report, render
from cluster.report.scored import ScoredRun, protocol_differences, read_runs
from cluster.report.settings import ReportSettings
from cluster.tracking.handle import start_delivery, tracking_of
from cluster.tracking.journal import JOURNAL_NAME, Journal
from poselib.errors import InputError
from shards.atomic import write_whole

NAME: Final = "report.html"


def write_report(settings: ReportSettings) -> None:
    """`pose report`: write the page and say where it is.

    Raises:
        InputError: no run, no score, scores of different protocols, or a page that cannot be written.
    """
    console = Console()
    runs = read_runs(settings)
    path = settings.out or (settings.runs[0] / NAME if len(runs) == 1 else Path(NAME))
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a folder; make it, or give another --out")
    report = make_report(runs, settings, console)
    page = render(report).encode()
    write_whole(path, page)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False, highlight=False)

    left = _track(settings.runs[0], path) if len(runs) == 1 else ""
    for line in (*report.warnings, report.photo_note, left):
        if line:
            say(line)
    say(f"report of {len(report.places)} samples, {len(page) / 1e6:.1f} MB: {path}; next: open it in a browser")


def _track(folder: Path, page: Path) -> str:
    """Hand a run's own page to its journal and to MLflow; returns what MLflow did not get."""
    if not (folder / JOURNAL_NAME).is_file() or page.resolve().parent != folder.resolve():
        return ""
    tracking = tracking_of(folder)
    if not tracking.enabled:
        return ""
    with Journal(folder) as journal:
        journal.artifact(page.name)
    return start_delivery(folder, tracking).finish()


def make_report(runs: list[ScoredRun], settings: ReportSettings, console: Console) -> Report:
    """Everything on the page."""
    with console.status("figures and intervals"):
        measured = [measure(run.samples) for run in runs]
        changes, own, sureness = compare(runs, measured, settings.draws)
    places, groups = choose(runs, settings.samples)
    photos, note = _photos(runs[0], places, settings, console)
    warnings = [
        f"{other.label} was scored by another protocol than {runs[0].label}: {'; '.join(different)}"
        for other in runs[1:]
        if (different := protocol_differences(runs[0], other))
    ]
    return Report(runs, measured, own, changes, sureness, places, groups, photos, note, tuple(warnings))


def _photos(
    run: ScoredRun, places: np.ndarray, settings: ReportSettings, console: Console
) -> tuple[list[Photo | None], str]:
    """The pictures, and why there are none."""
    try:
        shards = open_shards(run, settings.h36m)
    except InputError as error:
        if settings.h36m:
            raise
        return [None] * len(places), f"No pictures: {error}; --h36m says where the shard set lies."
    rows, side = run.samples.rows[places], side_px(len(places))
    shown = track(rows, "pictures", console=console, transient=True)
    return [read_photo(shards, int(row), side) for row in shown], ""
