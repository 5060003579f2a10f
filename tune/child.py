"""`pose train` that stops, with a checkpoint, when the process that started it dies, however it dies.

python -m tune.child PARENT_PID CONFIG
"""

import os
import sys

from cluster.children import end_with_parent


def main() -> None:
    """Become `pose train`; Linux keeps the wish over the exec."""
    parent, config = sys.argv[1:]
    end_with_parent()
    if os.getppid() == int(parent):  # else it died before the wish was heard
        os.execv(sys.executable, [sys.executable, "-m", "pose", "train", "--config", config])  # noqa: S606


if __name__ == "__main__":
    main()
