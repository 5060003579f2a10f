"""Measures some forms in turns: one report, whoever asks for it."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from cluster.bench.device import ceiling_of
from cluster.bench.ratio import Ratio, compare, over_rounds
from cluster.bench.rounds import Form, Played, Team, Turns, alternate
from cluster.bench.work import Work, work_of


def measure(forms: Sequence[Form], how: Turns) -> dict[str, Any]:
    """Rounds, memory, stages, work and ceilings of every form; what all are to the first.

    Returns:
        JSON: `forms`, `stages` (seconds per picture) and `ratios` by the forms' names; `ceilings` and `checkpoint_s` of
        the first form; the `clock`.

    Raises:
        InputError: a form cannot be had on this machine.
    """
    with ExitStack() as stack:
        teams = [stack.enter_context(Team(form)) for form in forms]
        played = alternate(teams, how)
        stages = {team.form.name: _per_picture(team, how.steps) for team in teams}
        notes = {team.form.name: team.ask("notes") for team in teams}
        ceilings = teams[0].ask("ceilings")
        report: dict[str, Any] = {"clock": how.clock, "ceilings": ceilings, "stages": stages}
        if forms[0].kind == "ours":
            report["checkpoint_s"] = teams[0].ask("checkpoint")["seconds"]
    report["forms"] = {form.name: _row(form, played[form.name], ceilings) | notes[form.name] for form in forms}
    return report | {"ratios": ratios_of(played)}


def ratio_of(report: dict[str, Any], name: str, figure: str = "times_as_long") -> Ratio:
    """Of a form beside the first: `times_as_long` it takes for a picture, or `share_of_memory` that the first takes."""
    return Ratio(**report["ratios"][name][figure])


def level_of(report: dict[str, Any], name: str, figure: str) -> Ratio:
    """A form's own figure over the rounds: `img_per_s`, or `of_roofline`."""
    row = report["forms"][name]
    factor = {"img_per_s": 1.0, "of_roofline": row["roofline_s"]}[figure]
    return over_rounds([factor / seconds for seconds in row["seconds"]])


def ratios_of(played: dict[str, Played]) -> dict[str, Any]:
    """Of all forms but the first, beside the first."""
    first, *others = played.values()
    return {
        name: {
            "times_as_long": asdict(compare(first.seconds, other.seconds)),
            "share_of_memory": asdict(compare(other.bytes, first.bytes)),
            "first_loss": other.first_loss / first.first_loss - 1 if first.first_loss else 0.0,
        }
        for name, other in zip(list(played)[1:], others, strict=True)
    }


def _per_picture(team: Team, steps: int) -> dict[str, float]:
    return {stage: seconds / team.form.images for stage, seconds in team.ask("stages", steps).items()}


def _row(form: Form, played: Played, ceilings: dict[str, float]) -> dict[str, Any]:
    """A form by itself."""
    own = over_rounds(played.seconds)
    row = {"images": form.images, "ranks": form.ranks, "precision": form.precision, "first_loss": played.first_loss}
    row |= {"ms": 1e3 * own.median * form.images, "img_per_s": 1 / own.median, "spread": own.spread}
    row |= {"seconds": played.seconds, "bytes": max(played.bytes)}
    return row | _work(form, work_of(form.run.model), ceilings, own.median)


def _work(form: Form, work: Work, ceilings: dict[str, float], seconds: float) -> dict[str, Any]:
    """Operations and rooflines per picture of all ranks together, and how near the step comes to them."""
    name = ceiling_of(form.precision, ceilings)
    bytes_each, ranks = (2 if form.precision == "bf16" else 4), form.ranks
    fused, eager = (
        work.roofline_s(ceilings[name], ceilings["bytes"], bytes_each, each) / ranks for each in (True, False)
    )
    return {
        "flops": work.flops,
        "parameters": work.parameters,
        "ceiling": name,
        "utilisation": work.flops / ranks / seconds / ceilings[name],
        "roofline_s": fused,
        "eager_roofline_s": eager,
        "of_roofline": fused / seconds,
    }
