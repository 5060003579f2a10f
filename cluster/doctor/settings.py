"""What `pose doctor` shall check. No torch here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from poselib.settings import check_at_least


@dataclass(frozen=True)
class DoctorSettings:
    """Check this machine, or all nodes of a Slurm allocation: libraries, GPUs, folders, ports, clocks.

    Attributes:
        run: settings of a run, as for `pose train --config`: its shard sets, folder and device are checked.
        shared: folders that every node has to see and write; the run's `runs_dir`, or `runs`, besides.
        device: where the run shall compute; `auto` takes the run's `engine.device`.
        timeout_s: how long to wait for another node, and for each library.
    """

    run: Path | None = None
    shared: tuple[Path, ...] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    timeout_s: int = 120

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 1, "timeout_s")
