"""The checkpoints of a run by their names alone: `checkpoints/step-00000120`. No torch here."""

import re
from pathlib import Path
from typing import Final

CHECKPOINTS: Final = "checkpoints"
PARTIAL: Final = "step-*.partial"
"""What is being written, or was when its writer ended."""

_NAME: Final = re.compile(r"step-(\d{8})")


def checkpoint_name(step: int) -> str:
    """The name of the checkpoint after so many steps."""
    return f"step-{step:08d}"


def step_of(checkpoint: Path) -> int | None:
    """The step that a checkpoint's name tells; None for other names, partial ones too."""
    found = _NAME.fullmatch(checkpoint.name)
    return int(found[1]) if found else None


def by_step(checkpoints: Path) -> dict[int, Path]:
    """The checkpoints in a folder, the oldest first."""
    steps = {step_of(path): path for path in sorted(checkpoints.glob("step-*"))}
    return {step: path for step, path in steps.items() if step is not None}
