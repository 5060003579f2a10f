"""`pose tune report`: a search as one HTML file that needs nothing else."""

import html
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from cluster.tracking.journal import JOURNAL_NAME, Metrics, read_metrics
from poselib.errors import InputError
from shards.atomic import write_whole
from tune.configuration import folder_of
from tune.earlier import load_search
from tune.records import TrialRecord, read_trials
from tune.search import best_trial
from tune.settings import Mode, TuneReportSettings, TuneSettings
from tune.space import short

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PAGE: Final = "search.html"
_SPEED: Final = "train/images_per_s"
_STYLE: Final = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fbfaf7; color: #1d1f22; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .3rem; }
p { margin: .2rem 0 .7rem; color: #676c73; font-size: .9rem; }
.card { background: #fff; border: 1px solid #e3e1da; border-radius: .6rem; padding: .8rem 1rem; overflow-x: auto; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin-top: 1.2rem; }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.3; }
.tiles span { color: #676c73; font-size: .85rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #eeece5; vertical-align: top; }
th { color: #676c73; font-weight: 500; white-space: nowrap; }
tr.best td { font-weight: 650; }
td.why { max-width: 24rem; overflow-wrap: anywhere; color: #676c73; }
"""


def report_search(settings: TuneReportSettings) -> None:
    """`pose tune report`: write the page of a search, also of one on its way.

    Raises:
        InputError: no such search, or no trial with a score.
    """
    path = write_page(load_search(settings.runs_dir, settings.name))
    Console().print(f"{path}: open it in any browser; it needs no network", highlight=False, soft_wrap=True)


def write_page(settings: TuneSettings) -> Path:
    """Write `search.html` into a search's folder; returns where it is.

    Raises:
        InputError: no trial has a score yet.
    """
    folder = folder_of(settings)
    records = read_trials(folder)
    metric = settings.search.metrics[0]
    best = best_trial(records, settings.search, metric)
    if best is None:
        raise InputError(f"{folder} has no trial with a score yet; {len(records)} were begun")
    histories = {record.name: _history(folder / record.name) for record in records}
    sections = [*_sections(settings, records, histories, best), ("Trials", "", _table(settings, records, best))]
    write_whole(folder / PAGE, _page(settings.name, _tiles(settings, records, histories, best), sections).encode())
    return folder / PAGE


Section = tuple[str, str, str]
"""A heading, a line below it, and HTML."""


def _sections(
    settings: TuneSettings, records: list[TrialRecord], histories: dict[str, list[Metrics]], best: TrialRecord
) -> list[Section]:
    from tune import figures  # Plotly and Optuna take a second to import

    search, metric = settings.search, settings.search.metrics[0]
    judged = [record for record in records if metric in record.scores and record.status != "failed"]
    coordinates = figures.parallel_coordinates(judged, metric, search.modes[0])
    curves = figures.learning_curves(records, histories, metric, settings.validate_every, best.name)
    words = "One line per trial; dark ones are good ones. Point at a line to see its trial."
    sections = [("Settings and scores", words, _draw(coordinates))]
    found = {name: shares for name in search.metrics if (shares := figures.importances(judged, name))}
    if found:
        words = f"By fANOVA over {len(judged)} trials with a score; of few trials it is a hint, no proof."
        sections.append(("What matters", words, _draw(figures.importance_bars(found))))
    words = "The best in blue; dotted lines end in a failure."
    sections.append(("Learning curves", words, _draw(curves)))
    names, modes = _pair(settings)
    points = [
        (one, a, b)
        for one in judged
        if (a := _value(one, names[0], histories)) is not None and (b := _value(one, names[1], histories)) is not None
    ]
    if points:
        words = "No other trial is better in both than one of the front."
        title = f"{names[0]} against {names[1]}"
        sections.append((title, words, _draw(figures.front(points, names, modes))))
    return sections


def _pair(settings: TuneSettings) -> tuple[tuple[str, str], tuple[Mode, Mode]]:
    """What the front is drawn over: the first two metrics, or the only one and the speed."""
    search = settings.search
    if len(search.metrics) > 1:
        return (search.metrics[0], search.metrics[1]), (search.modes[0], search.modes[1])
    return (search.metrics[0], _SPEED), (search.modes[0], "max")


def _value(record: TrialRecord, name: str, histories: dict[str, list[Metrics]]) -> float | None:
    """A trial's score; of a metric that was not searched by, the median of its history."""
    if name in record.scores:
        return record.scores[name]
    values = [entry.values[name] for entry in histories[record.name] if name in entry.values]
    return statistics.median(values) if values else None


def _history(folder: Path) -> list[Metrics]:
    return read_metrics(folder) if (folder / JOURNAL_NAME).is_file() else []


def _tiles(
    settings: TuneSettings, records: list[TrialRecord], histories: dict[str, list[Metrics]], best: TrialRecord
) -> str:
    search = settings.search
    counts = {status: sum(one.status == status for one in records) for status in ("stopped early", "failed", "waiting")}
    spent = sum(record.epochs for record in records)
    tiles = [(f"{best.scores[name]:.4g}", f"{name} of {best.name}") for name in search.metrics if name in best.scores]
    tiles += [(str(len(records)), f"trials; {search.searcher}, {search.scheduler}")]
    tiles += [(str(count), status) for status, count in counts.items() if count]
    tiles += [(f"{spent / (settings.epochs * len(records)):.0%}", f"of the epochs of {len(records)} whole trainings")]
    return "".join(
        f'<div class="card"><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>' for value, name in tiles
    )


def _table(settings: TuneSettings, records: list[TrialRecord], best: TrialRecord) -> str:
    search = settings.search
    metric, sign = search.metrics[0], 1 if search.modes[0] == "min" else -1
    ordered = sorted(
        records, key=lambda one: (one.status == "failed", metric not in one.scores, sign * one.scores.get(metric, 0))
    )
    keys = list(best.values)
    rows = [_row(["trial", "status", *search.metrics, "epochs", *keys, "reason"], "th")]
    for one in ordered:
        scores = [f"{one.scores[name]:.4g}" if name in one.scores else "" for name in search.metrics]
        values = [short(one.scored_values.get(key)) for key in keys]
        cells = [one.name, one.status, *scores, f"{one.epochs:g}", *values]
        rows.append(_row([*cells, one.reason], "td", "best" if one is best else ""))
    return f"<table>{''.join(rows)}</table>"


def _row(cells: Sequence[str], tag: str, kind: str = "") -> str:
    *inner, last = (html.escape(cell) for cell in cells)
    return f'<tr class="{kind}">{"".join(f"<{tag}>{c}</{tag}>" for c in inner)}<{tag} class="why">{last}</{tag}></tr>'


def _draw(figure: "Figure") -> str:
    options = {"displaylogo": False, "responsive": True, "displayModeBar": False}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=options))


def _page(name: str, tiles: str, sections: list[Section]) -> str:
    from plotly.offline import get_plotlyjs

    body = "".join(
        f'<h2>{html.escape(title)}</h2><p>{html.escape(words)}</p><div class="card">{inner}</div>'
        for title, words, inner in sections
    )
    policy = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{html.escape(name)}: a search</title><style>{_STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f'<body><main><h1>{html.escape(name)}</h1><div class="tiles">{tiles}</div>{body}</main></body></html>\n'
    )
