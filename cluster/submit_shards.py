"""`pose submit shards`: a shard set as a job array, one task per share of its parts, and a job that closes it."""

from dataclasses import replace

from rich.console import Console

from cluster.settings_submit import SubmitShardsSettings
from cluster.submit import batch_script, logs, submit, wait_for
from poselib.errors import InputError
from shards.build import finish, open_shares
from shards.commands import build_shards, describe_set
from shards.readers import find_reader
from shards.settings import BuildSettings


def submit_shards(settings: SubmitShardsSettings) -> None:
    """Submit the shares that miss parts; run it again to have lost ones made.

    Raises:
        InputError: unusable raw data or settings, or Slurm is not here or refuses the job.
    """
    console, build = Console(), settings.build_settings()
    name, job = f"shards-{build.out.name}", replace(settings.job, folder=settings.job.folder / build.out.name)
    if settings.dry_run:
        find_reader(build)  # what would be refused is refused here too
        console.print(batch_script(settings.tasks, name, job), soft_wrap=True, highlight=False, markup=False)
        return
    shares = [replace(build, share=f"{number}/{settings.tasks}") for number in open_shares(build, settings.tasks)]
    tasks = submit(build_shards, shares, name, job) if shares else []
    closing = (build, settings.tasks)
    if job.executor != "slurm" or not tasks:
        failures = wait_for(tasks)
        try:
            close_set(closing)
        except InputError as error:
            raise InputError(f"{error}{f'; a task said: {failures[0]}' if failures else ''}") from error
        return
    small = replace(job, cpus=1)
    [last] = submit(close_set, [closing], f"{name}-finish", small, after=tasks)
    again = f" of {settings.tasks} (the others are made)" if len(tasks) < settings.tasks else ""
    console.print(
        f"submitted {len(tasks)} tasks{again} as job {tasks[0].job_id.partition('_')[0]}, and job {last.job_id} that"
        f" closes {settings.out}; logs: {logs([last])[0].parent}; next: squeue --me, then tail {logs([last])[0]}",
        soft_wrap=True,
        highlight=False,
    )


def close_set(closing: tuple[BuildSettings, int]) -> None:
    """Finish the set where the tasks have not done so, and say what it holds or what was lost.

    Raises:
        InputError: names the missing parts and the shares that lost them.
    """
    settings, tasks = closing
    Console().print(describe_set(settings.out, finish(settings, tasks)), soft_wrap=True, highlight=False, markup=False)
