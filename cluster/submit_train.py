"""`pose submit train`: a training as a Slurm job, one for each seed as an array; it behaves as slurm/train.sh does.

submitit runs `cluster/train_task.py` in every rank. The ranks take the signals from submitit, save together and leave;
the batch script waits for them and requeues (`cluster/layout.py`). All read their settings from a file beside the logs,
so that what was submitted is what runs, and `pose requeue` knows the run.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from cluster.config import dump, load
from cluster.layout import Layout, as_training, lay_out
from cluster.plan import describe, make_plan
from cluster.preflight import check, check_free
from cluster.settings import Run
from cluster.settings_submit import RunJobSettings, SubmitTrainSettings
from cluster.site import Site, find_site
from cluster.snapshot import planned_snapshot, take_snapshot
from cluster.submit import batch_script, submit, wait_for
from cluster.tracking.journal import last_status
from cluster.train_task import TrainTask, train_rank_of_job
from cluster.world import free_port
from poselib.errors import InputError
from shards.atomic import write_whole


def submit_train(settings: SubmitTrainSettings) -> None:
    """Check the run, say what it will do, and submit it; or print the batch script.

    Raises:
        InputError: the run cannot start, Slurm is not here or refuses the job, or a local one did not come to its end.
    """
    runs = settings.runs()
    folder = (settings.job.folder / settings.name).absolute()
    specs = folder / f"spec-{uuid.uuid4().hex[:8]}"
    name, job = f"train-{settings.name}", replace(settings.job, folder=folder)
    snapshot = planned_snapshot(folder) if settings.dry_run else take_snapshot(folder)
    layout = _layout(job, settings, snapshot.environment(), specs)
    plan = make_plan(runs[0], layout.world_size)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print("\n".join(describe(plan, runs[0], layout.nodes, layout.ranks)))
    if settings.dry_run:
        console.print(f"\n{batch_script(len(runs), name, job, layout)}")
        return
    for run in runs:
        check(run, layout.world_size)
        if "dependency" not in job.more:
            check_free(run)
    write_specs(specs, runs)
    local = job.executor == "local"
    tasks = [TrainTask(specs / f"{number}.yaml", free_port() if local else 0) for number in range(len(runs))]
    jobs = submit(train_rank_of_job, tasks, name, job, layout=layout, runs=[run.folder for run in runs])
    if local:
        failures = wait_for(jobs)
        _tell_end(runs, failures, console)
        return
    array = str(jobs[0].job_id).partition("_")[0]
    many = f" of {len(jobs)} tasks" if len(jobs) > 1 else ""
    console.print(f"submitted {name} as job {array}{many}; next: pose logs {array}{settings.job.elsewhere}, pose jobs")


def write_specs(specs: Path, runs: Sequence[Run]) -> None:
    """The settings of an array's tasks: `0.yaml` and so on."""
    try:
        specs.mkdir(parents=True)
        for number, run in enumerate(runs):
            write_whole(specs / f"{number}.yaml", dump(run).encode())
    except OSError as error:
        raise InputError(
            f"{specs} cannot be written ({error.strerror}); set job.folder to a folder that can"
        ) from error


def _layout(job: RunJobSettings, settings: SubmitTrainSettings, variables: Mapping[str, str], specs: Path) -> Layout:
    layout = as_training(lay_out(job, load(Site, find_site(settings.site)), variables), job.grace_s, specs)
    if job.executor == "local" and not job.ranks and not layout.gpus:
        return replace(layout, ranks=settings.engine.ranks or 1)
    return layout


def _tell_end(runs: Sequence[Run], failures: Sequence[str], console: Console) -> None:
    """Say how local trainings ended."""
    if failures:
        raise InputError(f"training ended early: {failures[0]}")
    stopped = [str(run.folder) for run in runs if last_status(run.folder) != "finished"]
    if stopped:
        raise InputError(f"{', '.join(stopped)}: stopped before the end; submit again to go on")
    console.print(f"trained: {', '.join(str(run.folder) for run in runs)}; next: pose submit eval {runs[0].folder}")
