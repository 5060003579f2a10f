"""The findings of all nodes as one table that stays short on many nodes, and advice below it."""

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.doctor.finding import Finding, NodeReport, Status

_COLOURS: Final[dict[Status, str]] = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_NAMED: Final = 6
"""How many nodes a cell names before it only counts."""


def show(reports: Sequence[NodeReport], console: Console) -> None:
    """Print a row for each check and each outcome of it, then one line of advice for each problem."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("check", "", "nodes", "found"):
        table.add_column(column, overflow="fold")
    advice = []
    for check in checks(reports):
        for finding, hosts, says in outcomes(reports, check):
            colour = _COLOURS[finding.status]
            where = nodes(hosts, len(reports))
            table.add_row(escape(check), f"[{colour}]{finding.status}[/]", escape(where), escape(says))
            if finding.status != "ok":
                advice.append(f"{finding.status}  {check} on {where}: {says}; {finding.advice}")
    console.print(table)
    for line in advice:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def checks(reports: Sequence[NodeReport]) -> list[str]:
    """The names of all checks, in order."""
    return list(dict.fromkeys(finding.check for report in reports for finding in report.findings))


def outcomes(reports: Sequence[NodeReport], check: str) -> list[tuple[Finding, list[str], str]]:
    """What a check found, worst first: a finding, the hosts that share it, and what it says.

    All that is well is one outcome, whatever the numbers; problems are apart where they differ.
    """
    groups: dict[tuple[str, str], list[tuple[str, Finding]]] = {}
    for report in reports:
        for finding in report.findings:
            if finding.check == check:
                key = (finding.status, "" if finding.status == "ok" else finding.says)
                groups.setdefault(key, []).append((report.host, finding))
    order = ("fail", "warn", "ok")
    found = []
    for (_, _), members in sorted(groups.items(), key=lambda item: order.index(item[0][0])):
        said = list(dict.fromkeys(finding.says for _, finding in members))
        says = said[0] if len(said) == 1 else f"{said[0]} ... {said[-1]}"
        found.append((members[0][1], [host for host, _ in members], says))
    return found


def nodes(hosts: Sequence[str], of: int) -> str:
    """Hosts in few words."""
    if len(hosts) == of and of > 1:
        return f"all {of}"
    return ", ".join(hosts[:_NAMED]) + (f" and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else "")
