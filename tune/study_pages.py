"""`tables.md` and `tables.html` of a study."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from cluster.tracking.provenance import code_version
from shards.atomic import write_whole
from tune.settings_study import ReportTablesSettings
from tune.study_statistics import LEVEL
from tune.study_studio import NOTE
from tune.study_tables import Filled, Judged, Measured, Study

PAGES: Final = ("tables.md", "tables.html")
_PARTS: Final = {"val": "S8", "test": "S9, S11"}
_DASH: Final = "–"
_ROW_HEAD: Final = ("row", "scored on", "published, mm", "at epoch", "mean, mm", "sd", "seeds", "best epochs")
_FINDING_HEAD: Final = ("finding", "published, mm", "measured, mm", f"± ({LEVEL:.0%})", "fewest seeds", "holds")


def write_pages(settings: ReportTablesSettings, study: Study) -> None:
    """Write both pages into the study's folder, each as a whole."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    note = NOTE if settings.scale == "studio" else ""
    content = {
        "name": settings.study,
        "note": note,
        "lines": [_provenance(settings, study), _how_judged(study)],
        "tables": [_table(filled) for filled in study.tables],
        "row_head": _ROW_HEAD,
        "finding_head": _FINDING_HEAD,
    }
    environment = Environment(loader=PackageLoader("tune"), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    page = environment.get_template("study.html").render(content)
    for name, text in zip(PAGES, (_markdown(content), page), strict=True):
        write_whole(settings.folder / name, text.encode())


def _provenance(settings: ReportTablesSettings, study: Study) -> str:
    day = datetime.now(UTC).date().isoformat()
    return f"Scale {settings.scale}, {study.trainings} trainings, code {code_version()}, written on {day}."


def _how_judged(study: Study) -> str:
    """How a verdict comes about, with the scatter of this study."""
    scatter = study.scatter["val"]
    if not scatter.freedom:
        known = "No row has two seeds yet, so nothing can be decided."
    else:
        known = f"Pooled over the rows, seeds scatter by {scatter.sd_mm:.1f} mm ({scatter.freedom} degrees of freedom)."
    return (
        f"{known} A finding holds (yes) or fails (no) where the {LEVEL:.0%} interval of the difference, by Student's t"
        " with that scatter, lies on one side of 0; else it is not decided. Each is judged by itself: of twenty, one"
        " may be decided by chance. Errors are MPJPE of the best validation, as published; the test is scored with"
        " that validation's weights."
    )


def _table(filled: Filled) -> dict[str, Any]:
    known = [value for row in filled.rows for value in row.values_mm]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    return {
        "title": filled.table.title,
        "rows": [{"cells": _cells(row), "dots": _dots(row, low, high)} for row in filled.rows],
        "findings": [_judged(one) for one in filled.findings],
        "range": f"{low:.0f} to {high:.0f} mm" if known else "",
    }


def _cells(one: Measured) -> list[str]:
    epochs = ", ".join(f"{epoch:g}" for epoch in one.epochs)
    epoch = one.row.epoch if one.part == "val" else None
    return [
        one.row.label,
        _PARTS[one.part],
        _number(one.published_mm, 2),
        str(epoch) if epoch else _DASH,
        _number(one.mean_mm, 1),
        _number(one.sd_mm, 1),
        str(len(one.values_mm)),
        epochs or _DASH,
    ]


def _judged(one: Judged) -> list[str]:
    measured = one.measured
    return [
        one.finding.text,
        _number(one.published_mm, 2, "+"),
        _number(measured.difference_mm, 1, "+"),
        _number(measured.margin_mm, 1),
        str(measured.seeds),
        measured.verdict,
    ]


def _dots(one: Measured, low: float, high: float) -> list[str]:
    """Where each seed stands between the table's least and largest error, percent."""
    return [f"{100 * (value - low) / max(high - low, 1e-9):.1f}" for value in one.values_mm]


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return _DASH if value is None or math.isnan(value) else f"{value:{sign}.{digits}f}"


def _markdown(content: dict[str, Any]) -> str:
    lines = [f"# {content['name']}", "", *content["lines"], ""]
    for table in content["tables"]:
        lines += [f"## {table['title']}", ""]
        lines += [f"**{content['note']}**", ""] if content["note"] else []
        lines += _rows(content["row_head"], [row["cells"] for row in table["rows"]])
        lines += _rows(content["finding_head"], table["findings"])
    return "\n".join(lines)


def _rows(head: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows), ""]


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def path_of(settings: ReportTablesSettings) -> Path:
    """The page for people."""
    return settings.folder / PAGES[1]
