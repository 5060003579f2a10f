"""A process that holds one form of a training and takes its steps when told to, one JSON line for each.

It is run by its path, with the tree to be measured in PYTHONPATH, so it can measure a revision that does not have it:
`cluster.bench` is what stands beside this file, all else is the tree's. Answers go where stdout went; what libraries
print goes to stderr.
"""

import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def use_own_harness() -> None:
    """Let `cluster.bench` be this file's folder, whatever tree is measured."""
    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location(
        "cluster.bench", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    sys.modules["cluster.bench"] = importlib.util.module_from_spec(spec)


def explain(error: Exception) -> dict[str, Any]:
    """What the team is told of an error; `mendable` where its words are all that it takes."""
    said = (str(error).splitlines() or [""])[0]
    if type(error).__name__ in ("InputError", "SettingsError"):
        return {"error": said, "mendable": True}
    if "busy or unavailable" in str(error):
        return {
            "error": "another process holds this GPU, and forms that take turns share one: set its compute mode to"
            " Default (nvidia-smi -c 0), or measure one form alone",
            "mendable": True,
        }
    traceback.print_exception(error)
    return {"error": f"{type(error).__name__}: {said}"}


def main() -> None:
    """Answer each line until there is none left."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    spec = json.loads(sys.argv[1])
    use_own_harness()
    rank: Any = None
    for line in sys.stdin:
        try:
            from cluster.bench.rank import Rank

            rank = rank or Rank(spec)
            what, *arguments = json.loads(line)
            answer = getattr(rank, what)(*arguments)
        except Exception as error:
            answer = explain(error)
        print(json.dumps(answer), file=answers, flush=True)
    if rank is not None:
        rank.leave()


if __name__ == "__main__":
    main()
