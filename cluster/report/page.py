"""The report as one HTML file that needs nothing else: styles, scripts, Plotly and pictures are inside."""

import base64
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import plotly.offline
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cluster.protocol import MEASURED
from cluster.report.charts import calibrations, histogram, within
from cluster.report.figures import Difference, Measured, Sureness
from cluster.report.gallery import Group, Photo
from cluster.report.scored import ScoredRun
from cluster.report.words import calibration_words, change, sureness_words, verdict
from cluster.scorecard import FIGURES
from cluster.words import amount, plain, unit
from poselib.camera import apply_affine
from poselib.skeleton import BONES, H36M_JOINTS, RIGHT_JOINTS

Differences = dict[tuple[str, str], Difference]


@dataclass(frozen=True, eq=False)
class Report:
    """Everything on the page.

    Attributes:
        runs: over the same samples.
        measured: each run's figures.
        own: the first run's figures with their intervals.
        changes: each further run's differences from the first.
        sureness: what the intervals stand on.
        places: which of the runs' samples are shown.
        groups: places in `places`.
        photos: of `places`; None where there is none.
        photo_note: why there are no pictures; empty where there are.
        warnings: what sets the runs' protocols apart, a line each.
    """

    runs: list[ScoredRun]
    measured: list[Measured]
    own: Differences
    changes: list[Differences]
    sureness: Sureness
    places: np.ndarray
    groups: list[Group]
    photos: list[Photo | None]
    photo_note: str = ""
    warnings: tuple[str, ...] = ()


def render(report: Report) -> str:
    """The page. Names of runs, actions and pictures are untrusted: the template and the scripts escape them."""
    first, many = report.runs[0], len(report.runs) > 1
    found = calibrations(report.runs)
    script, library = _template("report.js"), plotly.offline.get_plotlyjs()
    environment = Environment(loader=PackageLoader("cluster"), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    overall = {} if many else _overall(report)
    return environment.get_template("report.html").render(
        title=" / ".join(run.label for run in report.runs),
        subtitle=_subtitle(report),
        count=len(first.samples),
        whole=all(run.whole for run in report.runs),
        many=many,
        synthetic=any(run.card.get("synthetic") for run in report.runs),
        warnings=report.warnings,
        labels=[run.label for run in report.runs],
        headline=overall.get("headline"),
        tiles=overall.get("tiles", []),
        comparison=_comparison(report) if many else [],
        sureness=sureness_words(report.sureness, many),
        charts=[("Per action", _bars(report, "action")), ("Per joint", _bars(report, "joint"))],
        calibrations=[{"label": r.label} | calibration_words(one) for r, one in zip(report.runs, found, strict=True)],
        calibrated=any(found),
        photo_note=report.photo_note,
        groups=report.groups,
        protocol=_protocols(report.runs),
        data=_data(report, found),
        css=Markup(_template("report.css")),  # noqa: S704  # our own files
        script=Markup(script),  # noqa: S704
        plotly=Markup(_packed(library)),  # noqa: S704
        script_hashes=Markup(f"{_hash(script)} {_hash(library)}"),  # noqa: S704
    )


@cache
def _template(name: str) -> str:
    return (resources.files("cluster") / "templates" / name).read_text(encoding="utf-8")


@cache
def _packed(library: str) -> str:
    return base64.b64encode(gzip.compress(library.encode(), 9, mtime=0)).decode()


def _hash(script: str) -> str:
    """A script that the page's content policy lets run: no other will."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _subtitle(report: Report) -> str:
    versions = sorted({str(run.card.get("code_version", "unknown")) for run in report.runs})
    return f"code {', '.join(versions)}"


def _overall(report: Report) -> dict[str, Any]:
    """Headline and tiles of a single run, beside the mean pose."""
    card, overall = report.runs[0].card, report.measured[0].overall
    chosen = card["protocol"].get("headline", "mpjpe_mm")
    chosen = chosen if chosen in FIGURES else "mpjpe_mm"

    def tile(key: str) -> dict[str, str]:
        baseline = card.get(f"mean_pose_{key}")
        own = report.own.get(("overall", key))
        interval = f"{amount(key, own.low)} to {amount(key, own.high)}" if own and own.low is not None else ""
        return {
            "label": FIGURES[key],
            "value": amount(key, overall[key]),
            "unit": unit(key),
            "baseline": amount(key, baseline),
            "interval": interval,
        }

    return {"headline": tile(chosen), "tiles": [tile(key) for key in FIGURES if key != chosen]}


def _comparison(report: Report) -> list[dict[str, Any]]:
    """A row per overall figure: every run's, and how it differs from the first's."""
    rows = []
    for key, label in FIGURES.items():
        cells: list[dict[str, str]] = []
        for number, measured in enumerate(report.measured):
            cell = {"value": f"{amount(key, measured.overall[key])} {unit(key)}", "change": ""}
            if number:
                difference = report.changes[number - 1][("overall", key)]
                cell["change"] = change(key, difference)
                cell["verdict"], cell["words"] = verdict(key, difference)
            cells.append(cell)
        rows.append({"label": label, "cells": cells})
    return rows


def _bars(report: Report, kind: str) -> list[dict[str, Any]]:
    """A row per action or joint with a lane per run; lengths in percent of the longest."""
    per = [measured.per_action if kind == "action" else measured.per_joint for measured in report.measured]
    many = len(per) > 1
    card = report.runs[0].card
    baseline = {} if many or not report.runs[0].whole else card.get(f"mean_pose_per_{kind}", {})
    names = list(per[0])
    longest = max([value for values in per for value in values.values()] + [baseline.get(n, 0) for n in names] + [1e-9])
    counts = card.get("per_action_samples", {}) if kind == "action" and report.runs[0].whole else {}

    def lane(number: int, name: str) -> dict[str, str]:
        value, mark = per[number][name], baseline.get(name)
        difference = report.changes[number - 1].get((kind, name)) if number else None
        return {
            "value": f"{value:.1f}",
            "length": f"{100 * value / longest:.2f}",
            "mark": "" if mark is None else f"{100 * mark / longest:.2f}",
            "baseline": "" if mark is None else f"{mark:.1f}",
            "change": change("mpjpe_mm", difference) if difference else "",
        }

    return [
        {
            "label": name.replace("_", " "),
            "count": f"({counts[name]})" if name in counts else "",
            "lanes": [lane(number, name) for number in range(len(per))],
        }
        for name in names
    ]


def _protocols(runs: list[ScoredRun]) -> list[tuple[str, list[str], bool]]:
    """The cards in one: key, the value that all share or each run's own, and whether that forbids comparing."""
    cards = [{**run.card["protocol"], "code version": run.card.get("code_version", "")} for run in runs]
    rows = []
    for key in dict.fromkeys(key for card in cards for key in card):
        values = [card.get(key) for card in cards]
        same = all(value == values[0] for value in values)
        shown = [plain(values[0])] if same else [f"{r.label}: {plain(v)}" for r, v in zip(runs, values, strict=True)]
        rows.append((key, shown, not same and key in MEASURED))
    return rows


def _data(report: Report, found: list[Any]) -> dict[str, Any]:
    """What the scripts draw."""
    sides = [
        "right" if j in RIGHT_JOINTS else "left" if n.startswith("left_") else "trunk"
        for j, n in enumerate(H36M_JOINTS)
    ]
    return {
        "runs": [run.label for run in report.runs],
        "bones": BONES,
        "sides": sides,
        "joints": [name.replace("_", " ") for name in H36M_JOINTS],
        "histogram": histogram(report.runs),
        "within": within(report.runs),
        "calibration": [
            one and {"predicted": _round(one.predicted_mm), "observed": _round(one.observed_mm)} for one in found
        ],
        "groups": [group.members for group in report.groups],
        "samples": [
            _sample(report.runs, int(place), photo) for place, photo in zip(report.places, report.photos, strict=True)
        ],
    }


def _sample(runs: list[ScoredRun], place: int, photo: Photo | None) -> dict[str, Any]:
    samples = runs[0].samples
    parts = (samples.subjects[place], samples.actions[place], samples.cameras[place], f"frame {samples.frames[place]}")
    one_set = [run.card["protocol"].get("shard set") == runs[0].card["protocol"].get("shard set") for run in runs]

    def drawn(points: np.ndarray) -> list[list[float]]:
        assert photo is not None
        return _round(apply_affine(photo.from_stored, points.astype(np.float64)))

    return {
        "title": " · ".join(str(part) for part in parts if str(part)),
        "picture": str(samples.pictures[place]),
        "errors": [round(float(run.samples.errors_mm[place]), 1) for run in runs],
        "photo": base64.b64encode(photo.jpeg).decode() if photo else None,
        "side": photo.side_px if photo else 0,
        "true_px": drawn(samples.true_px[place]) if photo else None,
        # Pixels of another shard set's pictures mean nothing here.
        "px": [
            drawn(run.samples.predicted_px[place]) if photo and same else None
            for run, same in zip(runs, one_set, strict=True)
        ],
        "true_mm": _round(samples.true_mm[place]),
        "mm": [_round(run.samples.predicted_mm[place]) for run in runs],
        "spread": [
            _round(spread) if np.isfinite(spread).all() else None
            for spread in (run.samples.spread_mm[place] for run in runs)
        ],
    }


def _round(values: np.ndarray) -> list[Any]:
    return np.round(values.astype(np.float64), 1).tolist()
