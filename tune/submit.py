"""`pose submit tune`: a search as a Slurm job. No Ray here.

The job is `slurm/tune.sh` with the options, modules and variables of the site and of the code's copy written into it.
Asked to stop, it is requeued and goes on with its search.
"""

import shlex
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from cluster.config import dump, load
from cluster.layout import Layout, lay_out
from cluster.settings_submit import RunJobSettings
from cluster.site import Site, find_site
from cluster.snapshot import planned_snapshot, take_snapshot
from cluster.submit import submit_script
from poselib.errors import InputError
from shards.atomic import write_whole
from tune.configuration import folder_of
from tune.earlier import refuse_existing, resumed_settings
from tune.preflight import check_space
from tune.settings import TuneSettings
from tune.settings_submit import SubmitTuneSettings
from tune.space import read_space

_SCRIPT: Final = Path(__file__).resolve().parents[1] / "slurm" / "tune.sh"


def submit_tune(settings: SubmitTuneSettings) -> None:
    """Check the search as `pose tune` does, and submit it; or print the batch script.

    Raises:
        InputError: the space, the data or the folder do not fit; Slurm is not here, or refuses the job.
    """
    wanted = settings.search_settings()
    resumed = bool(wanted.resume)
    whole = resumed_settings(wanted) if resumed else wanted
    search = folder_of(whole).absolute()
    if not resumed:
        refuse_existing(whole, search)
    count = check_space(whole, read_space(whole.space))
    name, folder = f"tune-{search.name}", (settings.job.folder / search.name).absolute()
    snapshot = planned_snapshot(folder) if settings.dry_run else take_snapshot(folder)
    job = replace(settings.job, folder=folder)
    layout = lay_out(job, load(Site, find_site(settings.site)), snapshot.environment() | {"POSE_SEARCH": str(search)})
    script, words = tune_script(layout, job, name), _words(folder)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    nodes = f"{layout.nodes} node{'s' * (layout.nodes > 1)}"
    console.print(f"{search}: up to {whole.search.trials} trials on {nodes}; {count} configurations checked")
    if settings.dry_run:
        console.print(f"\n# sbatch {folder / 'tune.sh'} {shlex.join(words)}\n{script}")
        return
    job_id = _submit(wanted, folder, script, words, name, search)
    elsewhere = settings.job.elsewhere
    console.print(f"submitted {name} as job {job_id}; next: pose logs {job_id}{elsewhere}, pose jobs{elsewhere}")


def tune_script(layout: Layout, job: RunJobSettings, name: str) -> str:
    """`slurm/tune.sh` as a job of its own.

    Args:
        layout: of the nodes; its `before` lines come first.
        job: whose folder takes the log.
        name: of the job.

    Raises:
        InputError: the site runs an image.
    """
    if layout.python.startswith("apptainer "):
        raise InputError(
            "a search starts Ray on every node, which needs a venv: set venv in the site profile, not image"
        )
    if not _SCRIPT.is_file():
        raise InputError(f"{_SCRIPT} is not there: searches are submitted from a checkout")
    options = {
        "job-name": name,
        "output": str(job.folder / "%j_0_log.out"),
        "open-mode": "append",
        "no-kill": True,
        "nodes": layout.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": layout.ranks * layout.cpus,
        "time": layout.minutes,
        "signal": f"B:USR1@{job.grace_s}",
    } | dict(layout.options)
    asked = [
        f"#SBATCH --{key}" + ("" if value is True else f"={shlex.quote(str(value))}") for key, value in options.items()
    ]
    shebang, *lines = [line for line in _SCRIPT.read_text().splitlines() if not line.startswith("#SBATCH ")]
    before = [*layout.before, f"export POSE_BIN={shlex.quote(str(Path(shlex.split(layout.python)[0]).parent))}"]
    return "\n".join([shebang, *asked, *before, *lines]) + "\n"


def _words(folder: Path) -> list[str]:
    """What `pose tune` is called with."""
    return ["--config", str(folder / f"search-{uuid.uuid4().hex[:8]}.yaml")]


def _submit(wanted: TuneSettings, folder: Path, script: str, words: list[str], name: str, search: Path) -> str:
    path = folder / "tune.sh"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(Path(words[-1]), dump(wanted).encode())
        write_whole(path, script.encode())
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror}); set job.folder to a folder that can"
        ) from error
    return submit_script(path, words, name, search)
