"""How the ranks of a job lie on its nodes, and the lines of its batch script around them.

A training's batch script behaves as slurm/train.sh does: its ranks hear of USR1 and TERM themselves and save together,
the script outlives both, and once `srun` has returned `pose requeue` decides. No torch here.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cluster.settings_submit import RunJobSettings
from cluster.site import Site, sbatch_options, setup_lines, task_command
from poselib.errors import InputError

_MINUTES: Final = 24 * 60
_CPUS: Final = 8

_MEETING_PLACE: Final = (
    'read -r MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST")',
    "export MASTER_ADDR PYTHONUNBUFFERED=1",
)
_OUTLIVE: Final = "trap : TERM USR1 USR2 # the ranks hear of every signal themselves; this script sees how they end"


@dataclass(frozen=True)
class Layout:
    """What a job of several ranks asks of Slurm.

    Attributes:
        nodes: of the job.
        ranks: of each node.
        cpus: cores of each rank.
        gpus: of each node.
        minutes: time limit.
        options: of sbatch, by their long names; True for one without a value.
        srun: words for srun besides the counts.
        python: calls Python on a node, for a shell.
        before: lines of the batch script before its ranks.
        after: lines behind them.
    """

    nodes: int
    ranks: int
    cpus: int
    gpus: int
    minutes: int
    options: Mapping[str, str | bool]
    srun: tuple[str, ...]
    python: str
    before: tuple[str, ...]
    after: tuple[str, ...] = ()

    @property
    def world_size(self) -> int:
        """All ranks."""
        return self.nodes * self.ranks


def lay_out(job: RunJobSettings, site: Site, variables: Mapping[str, str]) -> Layout:
    """A job that is simply run again after it was cut off.

    Args:
        job: what the user asks for; where it is silent, `site` speaks.
        site: the cluster's profile.
        variables: for the ranks, such as those of a code snapshot.

    Raises:
        InputError: a value that no batch script can take.
    """
    site = _asked_of(job, site)
    options: dict[str, str | bool] = {}
    for word in sbatch_options(site, job.nodes):
        name, _, value = word.removeprefix("--").partition("=")
        options[name] = value or True
    for name in ("nodes", "time", "cpus-per-gpu", "cpus-per-task", "ntasks-per-node"):
        options.pop(name, None)  # said by the numbers below
    before = [f"{line} || exit 1" if line.startswith("module ") else line for line in setup_lines(site)]
    before += [*job.setup, *(f"export {name}={shlex.quote(value)}" for name, value in variables.items())]
    return Layout(
        nodes=job.nodes,
        ranks=job.ranks or site.gpus_per_node or 1,
        cpus=site.cpus_per_gpu or _CPUS,
        gpus=site.gpus_per_node,
        minutes=_minutes(site.time) if site.time else _MINUTES,
        options=options | {"requeue": True} | job.more,
        srun=("--open-mode=append",),
        python=shlex.join(_python(site)),
        before=tuple(before),
    )


def as_training(layout: Layout, grace_s: int, specs: Path) -> Layout:
    """The layout of ranks that save and leave at a signal, with the batch script that requeues them.

    Args:
        layout: of the ranks.
        grace_s: seconds between USR1 and the time limit.
        specs: where the settings of the array's tasks lie: `0.yaml` and so on.
    """
    spec = f'{shlex.quote(str(specs))}/"${{SLURM_ARRAY_TASK_ID:-0}}".yaml'
    # An image has no scontrol: the Python outside it asks.
    python = shlex.quote(sys.executable) if layout.python.startswith("apptainer ") else layout.python
    return replace(
        layout,
        options={"signal": f"USR1@{grace_s}", **layout.options},
        # A rank that fails ends all at once; ranks that outlive the others' good end have a minute.
        srun=(*layout.srun, "--kill-on-bad-exit=1", "--wait=60"),
        before=(*layout.before, *_MEETING_PLACE, _OUTLIVE),
        after=(
            "code=$?",
            "# `pose requeue` knows the run. With 1, 2 and 76 the ranks have said what a new start would meet again.",
            'case $code in 1 | 2 | 76) exit "$code" ;; esac',
            f'exec {python} -m pose requeue --config {spec} --exit_code "$code"',
        ),
    )


def _asked_of(job: RunJobSettings, site: Site) -> Site:
    """The profile with what the user asks for in its place."""
    named: dict[str, object] = {name: getattr(job, name) for name in ("partition", "account", "qos")}
    named |= {"time": str(job.minutes or ""), "cpus_per_gpu": job.cpus}
    named["memory"] = f"{round(1024 * job.memory_gb)}M" if job.memory_gb else ""
    asked = {name: value for name, value in named.items() if value}
    if job.gpus >= 0:
        asked |= {"gpus_per_node": job.gpus} | ({} if job.gpus else {"gpu_type": ""})
    try:
        return replace(site, **asked)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"job.{error}") from error


def _python(site: Site) -> list[str]:
    if site.image:
        return [*task_command(site)[:-1], "python"]
    return [str(Path(task_command(site)[0]).with_name("python"))] if site.venv else [sys.executable]


def _minutes(time: str) -> int:
    """A time limit as Slurm writes it: `90`, `90:00`, `1:30:00`, `2-0`, `2-0:30`, `2-0:30:00`."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, [*parts, 0][:2]
    return 24 * 60 * int(days or 0) + 60 * hours + minutes + (seconds + 59) // 60
