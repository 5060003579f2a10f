"""How a function and its settings become Slurm jobs. submitit is used here alone.

A kind of job is a module-level function of one picklable argument that may be run again after it was cut off; see
`cluster/submit_shards.py`. submitit starts it from a file in `job.folder` and keeps its log beside. A job of many ranks
runs it in each, see `cluster/submit_train.py`.

submitit sets handlers before the function is called: USR2 requeues from rank 0 alone, TERM is passed over. A training
replaces both with its own as its first act, and its script asks Slurm for USR1 instead.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError, UncompletedJobError
from submitit.slurm.slurm import _make_sbatch_string

from cluster.job_records import JobRecord, write_record
from cluster.layout import Layout
from cluster.settings_submit import JobSettings
from cluster.world import World
from poselib.errors import InputError


@dataclass(frozen=True)
class Restartable:
    """A call that is simply made again when its job is preempted or reaches its time limit."""

    function: Callable[[Any], object]
    argument: Any

    def __call__(self) -> None:
        """Results stay on disk, where the function left them: what submitit keeps has to be pickled."""
        self.function(self.argument)

    def checkpoint(self) -> DelayedSubmission:
        """submitit asks for it just before the limit, and requeues."""
        return DelayedSubmission(self)


def submit(
    function: Callable[[Any], object],
    arguments: Sequence[Any],
    name: str,
    job: JobSettings,
    after: Sequence[submitit.Job[Any]] = (),
    layout: Layout | None = None,
    runs: Sequence[Path] = (),
) -> list[submitit.Job[Any]]:
    """Submit a task for each argument, as one job array where there are several, and keep a record of each.

    Args:
        function: defined in a module; may be run again.
        arguments: picklable, one per task.
        name: of the job.
        job: what each task asks for.
        after: jobs that must have ended, well or not, before these begin.
        layout: of a task's ranks; without one a task is one process.
        runs: the folder of the run that each task works on, if it does.

    Raises:
        InputError: Slurm is not here, or refuses the job.
    """
    executor = _executor(name, job, after, layout)
    calls = [Restartable(function, argument) for argument in arguments]
    try:
        if len(calls) == 1:
            jobs = [executor.submit(calls[0])]
        else:
            with executor.batch():
                jobs = [executor.submit(call) for call in calls]
    except FailedJobError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"Slurm refuses the job {name}: {reason}") from error
    _record(jobs, name, job, layout, runs)
    return jobs


def batch_script(tasks: int, name: str, job: JobSettings, layout: Layout | None = None) -> str:
    """The script that `submit` would give to sbatch for an array of so many tasks."""
    parameters = _slurm_parameters(name, job, layout) | ({"map_count": tasks} if tasks > 1 else {})
    call = f"{layout.python if layout else 'python'} -u -m submitit.core._submit {job.folder}"
    return _make_sbatch_string(call, job.folder, **parameters)


def local_world(port: int) -> World:
    """This process' place among the ranks of a local job that meet at `port`."""
    place = submitit.JobEnvironment()
    rank, size = place.global_rank, place.num_tasks
    return World(rank, size, rank, size, port=port)


def submit_script(script: Path, words: Sequence[str], name: str, run: Path) -> str:
    """Give a batch script that stands whole in the folder of its job to sbatch, and keep a record; gives the job's id.

    Args:
        script: with all its options; its log comes beside it.
        words: for the script.
        name: of the job.
        run: the folder that it works on.

    Raises:
        InputError: Slurm is not here, or refuses the job.
    """
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SBATCH_")}
    try:
        done = subprocess.run(
            ["sbatch", "--parsable", str(script), *words], capture_output=True, text=True, check=False, env=environ
        )
    except FileNotFoundError as error:
        raise InputError("there is no sbatch on this machine; take a login node") from error
    if done.returncode:
        raise InputError(f"Slurm refuses the job {name}: {' '.join(done.stderr.split())}")
    job_id = done.stdout.strip().split(";")[0]
    log = script.parent / f"{job_id}_0_log.out"
    write_record(
        script.parent, JobRecord(job_id, name, "slurm", socket.gethostname(), time.time(), (str(log),), str(run))
    )
    return job_id


def wait_for(jobs: Sequence[submitit.Job[Any]]) -> list[str]:
    """Wait for all; of each that failed what its error said."""
    failures = []
    for job in jobs:
        job.wait()
        ranks = [job.task(rank) for rank in range(job.num_tasks)] if job.num_tasks > 1 else [job]
        words = [said for rank in ranks for said in _failure(rank)]
        failures += sorted(words, key=lambda said: "; see " in said)[:1]  # of several ranks one that says why
    return failures


def _failure(job: submitit.Job[Any]) -> list[str]:
    """What one rank's error said; nothing where it ended well."""
    try:
        job.result()
    except FailedJobError as error:
        trace = str(error).split("-" * 20)[1].strip("-\n")  # submitit frames the traceback with dashes
        return [trace.splitlines()[-1]]
    except UncompletedJobError as error:
        return [f"{' '.join(str(error).split())}; see {job.paths.stdout}"]
    return []


def logs(jobs: Sequence[submitit.Job[Any]]) -> list[Path]:
    """Where each job's output goes."""
    return [job.paths.stdout for job in jobs]


def _record(
    jobs: Sequence[submitit.Job[Any]], name: str, job: JobSettings, layout: Layout | None, runs: Sequence[Path]
) -> None:
    """For `pose jobs`."""
    ranks = layout.world_size if layout else 1
    now, host = time.time(), socket.gethostname()
    for number, submitted in enumerate(jobs):
        task_logs = tuple(str(submitted.paths.folder / f"{submitted.job_id}_{rank}_log.out") for rank in range(ranks))
        run = str(runs[number].absolute()) if runs else ""
        record = JobRecord(str(submitted.job_id), name, job.executor, host, now, task_logs, run)
        write_record(submitted.paths.folder, record)


def _executor(
    name: str, job: JobSettings, after: Sequence[submitit.Job[Any]], layout: Layout | None
) -> submitit.Executor:
    if job.executor == "local":
        local = submitit.LocalExecutor(job.folder)
        ranks = {"tasks_per_node": layout.ranks, "gpus_per_node": layout.gpus} if layout else {}
        minutes = layout.minutes if layout else job.minutes
        local.update_parameters(timeout_min=minutes, stderr_to_stdout=True, **ranks)
        return local
    if submitit.SlurmExecutor.affinity() < 0:
        raise InputError("job.executor: there is no sbatch on this machine; take a login node, or local")
    executor = submitit.SlurmExecutor(job.folder.resolve(), python=layout.python if layout else None)
    executor.update_parameters(**_slurm_parameters(name, job, layout, after))
    return executor


def _slurm_parameters(
    name: str, job: JobSettings, layout: Layout | None = None, after: Sequence[submitit.Job[Any]] = ()
) -> dict[str, Any]:
    """As submitit names them."""
    parameters: dict[str, Any] = {"job_name": name, "array_parallelism": job.at_once, "stderr_to_stdout": True}
    parameters |= _of_ranks(layout) if layout else _of_one(job)
    if after:
        arrays = sorted({str(earlier.job_id).partition("_")[0] for earlier in after})
        parameters["dependency"] = "afterany:" + ":".join(arrays)
    return parameters


def _of_one(job: JobSettings) -> dict[str, Any]:
    """A task that is one process."""
    named = {"partition": job.partition, "account": job.account, "qos": job.qos, "setup": list(job.setup)}
    parameters: dict[str, Any] = {key: value for key, value in named.items() if value}
    parameters |= {
        "time": job.minutes,
        "cpus_per_task": job.cpus,
        # srun of Slurm 22.05 and later does not take the number over from sbatch.
        "srun_args": [f"--cpus-per-task={job.cpus}"],
        "additional_parameters": {"requeue": True} | job.more,
    }
    return parameters | ({"mem": f"{round(1024 * job.memory_gb)}M"} if job.memory_gb else {})


def _of_ranks(layout: Layout) -> dict[str, Any]:
    """A task of several ranks."""
    counts = [f"--ntasks={layout.world_size}", f"--ntasks-per-node={layout.ranks}", f"--cpus-per-task={layout.cpus}"]
    return {
        "time": layout.minutes,
        "nodes": layout.nodes,
        "ntasks_per_node": layout.ranks,
        "cpus_per_task": layout.cpus,
        "srun_args": [*counts, *layout.srun],
        "additional_parameters": dict(layout.options),
        "setup": list(layout.before),
        "teardown": list(layout.after) or None,
    }
