"""What has to be the same on every node, and is not."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from cluster.doctor.finding import Finding, NodeReport, Status

_COMPARED: Final[dict[str, tuple[Status, str]]] = {
    "Python": ("fail", "use one environment on all nodes: a venv on a shared file system, or one image"),
    "packages": ("fail", "use one environment on all nodes: a venv on a shared file system, or one image"),
    "code": ("fail", "run from one folder that all nodes mount, or submit with a copy (pose site SITE --snapshot RUN)"),
    "shards": ("fail", "use one copy of the shard sets on a shared file system, or copy them anew"),
    "driver": ("warn", "ask the site to bring the nodes to one driver, or choose others (--constraint, --exclude)"),
    "NCCL": ("fail", "use one environment on all nodes"),
    "GPUs": ("warn", "the slowest GPU sets the pace: ask for nodes of one kind (--constraint)"),
    "InfiniBand": ("warn", "NCCL falls back to what all nodes have: ask for nodes of one kind (--constraint)"),
    "CPU cores": ("warn", "the slowest node sets the pace: ask for as many cores everywhere (--cpus-per-gpu)"),
}
"""What to compare, how bad a difference is, and what to do."""


def compare(reports: Sequence[NodeReport]) -> list[NodeReport]:
    """The reports, each with a finding per fact: like most others, or not."""
    if len(reports) < 2:
        return list(reports)
    findings: list[list[Finding]] = [[] for _ in reports]
    for fact, (status, advice) in _COMPARED.items():
        values = [report.facts.get(fact) for report in reports]
        if all(value is None for value in values):
            continue
        usual = _most_common(values)
        for place, value in enumerate(values):
            finding = Finding(f"same {fact}", "ok", "the same on all")
            if value != usual:
                finding = Finding(f"same {fact}", status, _difference(value, usual), advice)
            findings[place].append(finding)
    return [replace(report, findings=(*report.findings, *more)) for report, more in zip(reports, findings, strict=True)]


def _most_common(values: Sequence[Any]) -> Any:
    """The value of most nodes; the first node's where none has more."""
    counted = Counter(json.dumps(value, sort_keys=True) for value in values)
    return json.loads(counted.most_common(1)[0][0])


def _difference(value: Any, usual: Any) -> str:
    """In words, at most three of a mapping's differences."""
    if not isinstance(value, dict) or not isinstance(usual, dict):
        return f"{_shown(value)}, elsewhere {_shown(usual)}"
    names = [name for name in sorted({*value, *usual}) if value.get(name) != usual.get(name)]
    shown = [f"{name} {value.get(name, 'missing')}, elsewhere {usual.get(name, 'missing')}" for name in names[:3]]
    return "; ".join(shown) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} x {value[0]}" if value and len(set(value)) == 1 else ", ".join(map(str, value)) or "none"
    return str(value or "none")
