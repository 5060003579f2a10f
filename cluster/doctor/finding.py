"""What a check says: a finding on one node, and a node's report of all of them."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check on one node.

    Attributes:
        check: what was checked, such as `GPUs`; the same words on every node.
        status: whether a run can work (`ok`), may suffer (`warn`) or cannot work (`fail`).
        says: what was found.
        advice: what would make it right; one line.
    """

    check: str
    status: Status
    says: str
    advice: str = ""


@dataclass(frozen=True)
class NodeReport:
    """All that one node found.

    Attributes:
        host: its name.
        findings: in the order of the checks.
        facts: what has to be the same on every node, such as versions; any JSON.
    """

    host: str
    findings: tuple[Finding, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """As one line of text, for the way between nodes."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        content = json.loads(text)
        findings = tuple(Finding(**finding) for finding in content["findings"])
        return cls(content["host"], findings, content["facts"])
