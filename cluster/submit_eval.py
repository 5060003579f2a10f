"""`pose submit eval`: the score of a run as a Slurm job of one process, which begins anew after it was cut off."""

from dataclasses import replace

from rich.console import Console

from cluster.config import load
from cluster.layout import lay_out
from cluster.settings_commands import EvaluateSettings
from cluster.settings_submit import SubmitEvalSettings
from cluster.site import Site, find_site
from cluster.snapshot import take_snapshot
from cluster.submit import batch_script, submit, wait_for
from poselib.errors import InputError


def submit_eval(settings: SubmitEvalSettings) -> None:
    """Submit `pose eval`, or print the batch script.

    Raises:
        InputError: there is no such run, Slurm is not here or refuses the job, or a local one failed.
    """
    run = settings.run.resolve()
    if not (run / "run.yaml").is_file():
        raise InputError(f"{settings.run} is no run: it holds no run.yaml")
    folder = (settings.job.folder / run.name).absolute()
    name, job = f"eval-{run.name}", replace(settings.job, folder=folder, ranks=1)
    variables = {} if settings.dry_run else take_snapshot(folder).environment()
    layout = lay_out(job, load(Site, find_site(settings.site)), variables)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if settings.dry_run:
        console.print(batch_script(1, name, job, layout))
        return
    [submitted] = submit(evaluate, [replace(settings.evaluation(), run=run)], name, job, layout=layout, runs=[run])
    if job.executor == "local":
        if failures := wait_for([submitted]):
            raise InputError(f"the evaluation failed: {failures[0]}")
        console.print(f"scored: {settings.run}; its card: {submitted.paths.stdout}")
        return
    number = submitted.job_id
    console.print(f"submitted {name} as job {number}; next: pose logs {number}{settings.job.elsewhere}")


def evaluate(settings: EvaluateSettings) -> None:
    """The job; torch is imported only where it runs."""
    from cluster.evaluate import evaluate_run

    evaluate_run(settings)
