"""How a function and its settings become Slurm jobs. submitit is used here alone.

A kind of job is a module-level function of one picklable argument that may be run again after it was cut off; see
`cluster/submit_shards.py`. submitit starts it from a file in `job.folder` and keeps its log beside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError, UncompletedJobError
from submitit.slurm.slurm import _make_sbatch_string

from cluster.settings_submit import JobSettings
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
) -> list[submitit.Job[Any]]:
    """Submit a task for each argument, as one job array where there are several.

    Args:
        function: defined in a module; may be run again.
        arguments: picklable, one per task.
        name: of the job.
        job: what each task asks for.
        after: jobs that must have ended, well or not, before these begin.

    Raises:
        InputError: Slurm is not here, or refuses the job.
    """
    executor = _executor(name, job, after)
    calls = [Restartable(function, argument) for argument in arguments]
    try:
        if len(calls) == 1:
            return [executor.submit(calls[0])]
        with executor.batch():
            return [executor.submit(call) for call in calls]
    except FailedJobError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"Slurm refuses the job {name}: {reason}") from error


def batch_script(tasks: int, name: str, job: JobSettings) -> str:
    """The script that `submit` would give to sbatch for an array of so many tasks."""
    parameters = _slurm_parameters(name, job) | ({"map_count": tasks} if tasks > 1 else {})
    call = "python -m submitit.core._submit ..."
    return _make_sbatch_string(call, job.folder, **parameters)


def wait_for(jobs: Sequence[submitit.Job[Any]]) -> list[str]:
    """Wait for all; of each that failed what its error said."""
    failures = []
    for job in jobs:
        job.wait()
        try:
            job.result()
        except FailedJobError as error:
            trace = str(error).split("-" * 20)[1].strip("-\n")  # submitit frames the traceback with dashes
            failures.append(trace.splitlines()[-1])
        except UncompletedJobError as error:
            failures.append(f"{' '.join(str(error).split())}; see {job.paths.stdout}")
    return failures


def logs(jobs: Sequence[submitit.Job[Any]]) -> list[Path]:
    """Where each job's output goes."""
    return [job.paths.stdout for job in jobs]


def _executor(name: str, job: JobSettings, after: Sequence[submitit.Job[Any]]) -> submitit.Executor:
    if job.executor == "local":
        local = submitit.LocalExecutor(job.folder)
        local.update_parameters(timeout_min=job.minutes)
        return local
    if submitit.SlurmExecutor.affinity() < 0:
        raise InputError("job.executor: there is no sbatch on this machine; take a login node, or local")
    executor = submitit.SlurmExecutor(job.folder.resolve())
    executor.update_parameters(**_slurm_parameters(name, job, after))
    return executor


def _slurm_parameters(name: str, job: JobSettings, after: Sequence[submitit.Job[Any]] = ()) -> dict[str, Any]:
    """As submitit names them."""
    named = {"partition": job.partition, "account": job.account, "qos": job.qos}
    parameters: dict[str, Any] = {key: value for key, value in named.items() if value}
    parameters |= {
        "job_name": name,
        "time": job.minutes,
        "cpus_per_task": job.cpus,
        "array_parallelism": job.at_once,
        "stderr_to_stdout": True,
        # srun of Slurm 22.05 and later does not take the number over from sbatch.
        "srun_args": [f"--cpus-per-task={job.cpus}"],
        "additional_parameters": {"requeue": True} | job.more,
    }
    if job.memory_gb:
        parameters["mem"] = f"{round(1024 * job.memory_gb)}M"
    if job.setup:
        parameters["setup"] = list(job.setup)
    if after:
        arrays = sorted({str(earlier.job_id).partition("_")[0] for earlier in after})
        parameters["dependency"] = "afterany:" + ":".join(arrays)
    return parameters
