"""The figures of a search's page, by Plotly. Each is for people: what it shows stands in its title."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import create_trial
from plotly.colors import sample_colorscale

from cluster.tracking.journal import Metrics
from tune.records import TrialRecord
from tune.settings import Mode
from tune.space import label, short

FEWEST: Final = 4
"""Trials with a score below which nothing is said about importance."""
_ACCENT: Final = "#35679a"
_SOFT: Final = "#b9bdc4"
_MOST_TICKS: Final = 8


def parallel_coordinates(records: Sequence[TrialRecord], metric: str, mode: Mode) -> go.Figure:
    """One line per trial with a score through its settings to its score; dark lines are good ones.

    Drawn as plain lines: Plotly's own form needs WebGL, which remote desktops often lack.
    """
    keys = list(records[0].values)
    scores = [record.scores[metric] for record in records]
    axes = [_axis([record.scored_values.get(key) for record in records]) for key in keys]
    axes.append(_Axis(*_spread(scores, scores, [f"{score:.4g}" for score in (min(scores), max(scores))])))
    worst_first = sorted(range(len(records)), key=scores.__getitem__, reverse=mode == "min")
    shades = sample_colorscale("Blues", [0.25 + 0.75 * n / max(1, len(records) - 1) for n in range(len(records))])
    figure = go.Figure()
    for shade, n in zip(shades, worst_first, strict=True):
        figure.add_scatter(
            x=list(range(len(axes))),
            y=[axis.places[n] for axis in axes],
            mode="lines+markers",
            line={"color": shade, "width": 2, "shape": "spline", "smoothing": 0.4},
            hovertemplate=f"{_words(records[n])}<br>{metric} {scores[n]:.4g}<extra></extra>",
        )
    for place, axis in enumerate(axes):
        figure.add_vline(x=place, line={"color": "#1d1f22", "width": 1}, layer="below")
        for at, text in axis.ticks:
            figure.add_annotation(
                x=place, y=at, text=_cut(text), showarrow=False, xanchor="right", xshift=-7, bgcolor="#ffffffcc"
            )
    names = [_cut(name, 34) for name in (*keys, metric)]
    figure.update_xaxes(tickvals=list(range(len(axes))), ticktext=names, showline=False, ticks="")
    figure.update_xaxes(range=[-0.5, len(axes) - 0.8])
    figure.update_yaxes(visible=False, range=[-0.06, 1.06])
    figure.update_layout(showlegend=False, hovermode="closest")
    return _dress(figure, 460)


def importances(records: Sequence[TrialRecord], metric: str) -> dict[str, float]:
    """How much of a metric's variance each setting explains (fANOVA, Hutter et al., ICML 2014); they sum to 1.

    Empty where fewer than `FEWEST` trials have a score, or nothing varies.
    """
    scored = [record for record in records if metric in record.scores]
    distributions = {
        key: found for key in (scored[0].scored_values if scored else {}) if (found := _distribution(scored, key))
    }
    if len(scored) < FEWEST or not distributions or len({record.scores[metric] for record in scored}) < 2:
        return {}
    study = _quiet_study(["min"])
    for record in scored:
        params = {
            key: label(record.scored_values[key])
            if isinstance(one, CategoricalDistribution)
            else float(record.scored_values[key])
            for key, one in distributions.items()
        }
        study.add_trial(create_trial(params=params, distributions=distributions, value=record.scores[metric]))
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


def importance_bars(found: dict[str, dict[str, float]]) -> go.Figure:
    """Bars of the settings' shares, by metric."""
    keys = list(reversed(next(iter(found.values()))))
    bars = [
        go.Bar(
            y=keys,
            x=[shares.get(key, 0.0) for key in keys],
            name=metric,
            orientation="h",
            texttemplate="%{x:.0%}",
            textposition="outside",
            cliponaxis=False,
            marker_color=_ACCENT if not place else None,
        )
        for place, (metric, shares) in enumerate(found.items())
    ]
    figure = go.Figure(bars)
    figure.update_xaxes(range=[0, 1.08], tickformat=".0%", title="share of the variance that it explains")
    figure.update_layout(showlegend=len(found) > 1)
    return _dress(figure, 130 + 44 * len(keys) * len(found))


def learning_curves(
    records: Sequence[TrialRecord], histories: dict[str, list[Metrics]], metric: str, every: float, best: str
) -> go.Figure:
    """A metric at every validation of every trial."""
    figure = go.Figure()
    for record in records:
        values = {entry.step: entry.values[metric] for entry in histories[record.name] if metric in entry.values}
        ys = [value for _, value in sorted(values.items())]
        if not ys:
            continue
        first = record.name == best
        colour = _ACCENT if first else _SOFT
        dash = "dot" if record.status == "failed" else "solid"
        figure.add_scatter(
            x=[every * (place + 1) for place in range(len(ys))],
            y=ys,
            name=f"{record.name}, the best" if first else record.name,
            mode="lines+markers",
            line={"color": colour, "width": 3 if first else 1.3, "dash": dash},
            marker={"size": 6 if first else 4},
            zorder=1 if first else 0,
            hovertemplate=f"{_words(record)}<br>epoch %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="epoch", rangemode="tozero")
    figure.update_yaxes(title=metric)
    return _dress(figure, 440)


def front(
    points: Sequence[tuple[TrialRecord, float, float]], names: tuple[str, str], modes: tuple[Mode, Mode]
) -> go.Figure:
    """Two metrics of every trial, and the line through those that no other beats in both."""
    study = _quiet_study(modes)
    for _, first, second in points:
        study.add_trial(create_trial(values=[first, second]))
    numbers = sorted((trial.number for trial in study.best_trials), key=lambda n: points[n][2])
    figure = go.Figure()
    for chosen, name, colour, size in ((False, "beaten in both", _SOFT, 8), (True, "Pareto front", _ACCENT, 11)):
        some = numbers if chosen else [n for n in range(len(points)) if n not in numbers]
        figure.add_scatter(
            x=[points[n][2] for n in some],
            y=[points[n][1] for n in some],
            name=name,
            mode="lines+markers+text" if chosen else "markers",
            line={"color": colour, "width": 1.5, "shape": "vh" if modes[1] == "max" else "hv"},
            marker={"size": size, "color": colour},
            text=[points[n][0].name for n in some] if chosen else None,
            textposition="top center",
            hovertext=[_words(points[n][0]) for n in some],
            hovertemplate="%{hovertext}<br>%{y:.4g} at %{x:.4g}<extra></extra>",
        )
    figure.update_xaxes(title=names[1])
    figure.update_yaxes(title=names[0])
    figure.update_layout(legend={"orientation": "h", "y": 1.08})
    return _dress(figure, 440)


def _dress(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    margin = {"l": 20, "r": 20, "t": 30, "b": 20}
    figure.update_layout(template="simple_white", height=height, font={"size": 13}, paper_bgcolor="rgba(0,0,0,0)")
    figure.update_layout(**({"margin": margin} | layout))
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


@dataclass(frozen=True)
class _Axis:
    """Where each trial stands on a setting's axis, 0 to 1, and what is written along it."""

    places: list[float]
    ticks: list[tuple[float, str]]


def _axis(values: list[Any]) -> _Axis:
    """Few different values at even distances; numbers by size, in powers of ten where they span more than 20."""
    known = {label(value): value for value in values}
    order = sorted(known.values()) if _numeric(values) else [known[one] for one in sorted(known)]
    if not _numeric(values) or len(order) <= _MOST_TICKS:
        even = [n / (len(order) - 1) if len(order) > 1 else 0.5 for n in range(len(order))]
        by_label = {label(value): place for value, place in zip(order, even, strict=True)}
        ticks = list(zip(even, map(short, order), strict=True))
        return _Axis([by_label[label(value)] for value in values], ticks)
    log = _is_wide(order)
    sizes = [math.log10(value) if log else float(value) for value in values]
    inner = [min(sizes) + n * (max(sizes) - min(sizes)) / 4 for n in range(5)]
    return _Axis(*_spread(sizes, inner, [f"{10**one if log else one:.3g}" for one in inner]))


def _spread(sizes: list[float], at: list[float], words: list[str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Numbers and their ticks on 0 to 1; with two words, those of the least and the greatest."""
    low, high = min(sizes), max(sizes)
    span = high - low or 1.0
    marks = [low, high] if len(words) == 2 else at
    return [(one - low) / span for one in sizes], [((m - low) / span, w) for m, w in zip(marks, words, strict=True)]


def _is_wide(numbers: Sequence[float]) -> bool:
    return min(numbers) > 0 and max(numbers) / min(numbers) > 20


def _cut(text: str, most: int = 22) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _distribution(records: Sequence[TrialRecord], key: str) -> BaseDistribution | None:
    """What a setting varied over; None where it did not."""
    values = [record.scored_values.get(key) for record in records]
    labels = sorted({label(value) for value in values})
    if len(labels) < 2:
        return None
    if not _numeric(values):
        return CategoricalDistribution(labels)
    numbers = [float(value) for value in values]  # type: ignore[arg-type]
    return FloatDistribution(min(numbers), max(numbers), log=_is_wide(numbers))


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _quiet_study(modes: Sequence[Mode]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    words = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
    return optuna.create_study(directions=[words[mode] for mode in modes])


def _words(record: TrialRecord) -> str:
    """A trial for a hover: its name, status and settings."""
    chosen = "<br>".join(f"{key} {short(value)}" for key, value in record.scored_values.items())
    return f"<b>{record.name}</b> {record.status}<br>{chosen}"
