"""Small files that are replaced as a whole or not at all."""

import json
from pathlib import Path
from typing import Any

from shards.atomic import write_whole


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file, strict JSON."""
    write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no such file, or a damaged one."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
