"""Whether a Slurm job goes on after its ranks have ended, and how. `slurm/train.sh` asks when `srun` has returned."""

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cluster.endings import FINAL_CODES, Ending, failed_node, forget_endings, read_endings
from cluster.fence import fruitless_starts, newest_step, read_incarnation
from cluster.settings import Run
from cluster.tracking.journal import last_status
from cluster.world import Job, current_job, job_hosts
from poselib.errors import InputError

_PATIENCE_S: Final = 900.0
"""How long a controller that does not answer is asked again: it may be restarting."""
_TRIES: Final = 20

Verdict = Literal["requeue", "done", "stale", "failed", "stuck"]


@dataclass(frozen=True)
class RequeueSettings(Run):
    """The run of a batch script whose ranks have ended.

    Attributes:
        exit_code: what `srun` returned.
    """

    exit_code: int = 0


def requeue(settings: RequeueSettings) -> None:
    """`pose requeue`: put the job that this runs in back into the queue if its run is to go on.

    Raises:
        InputError: it failed for good, made no progress in too many starts, or Slurm refuses.
    """
    job = current_job()
    if not job.id:
        raise InputError("this is for batch scripts: outside Slurm there is no job to requeue")
    endings = read_endings(settings.folder, job)
    verdict = judge(settings, job, endings)
    code, at = settings.exit_code, f"step {newest_step(settings.folder)}"
    bad = _failed_node(endings) if code else ""
    said = "; ".join(dict.fromkeys(ending.words for ending in endings if not ending.lost))[:500]
    why = said or (f"on {bad}" if bad else "")
    ended = f"ended with exit code {code}{f' ({why})' if why else ''}"
    if verdict == "failed":
        raise InputError(f"job {job.id} ends: its ranks {ended}, as they would again")
    if verdict == "stuck":
        raise InputError(
            f"job {job.id} ends: {settings.restart.limit} starts in a row have made no checkpoint after {at}; the last"
            f" {ended}. Mend what this names and submit again, or set restart.limit"
        )
    if verdict == "requeue":
        forget_endings(settings.folder)
        avoid = bad if settings.restart.exclude_nodes else ""
        because = f"its ranks {ended}" if code else "it was asked to stop"
        without = f" without {avoid}" if avoid else ""
        line = f"job {job.id} goes back into the queue{without}, as {because}; it will go on after {at}"
        _requeue(job, avoid, line)


def judge(settings: RequeueSettings, job: Job, endings: Sequence[Ending] = ()) -> Verdict:
    """What is to be done after the ranks of `job` ended with `settings.exit_code`, and left these notes.

    Raises:
        TryAgain: whether a newer start is at work cannot be read.
    """
    folder = settings.folder
    newest = read_incarnation(folder)
    if newest.follows(job):
        return "stale"
    if settings.exit_code == 0:
        return "requeue" if _status(folder) == "stopped" else "done"
    # `srun` kills the ranks that outlive one, and returns their signal's code rather than that one's.
    if settings.exit_code in FINAL_CODES or any(ending.final for ending in endings):
        return "failed"
    mine = newest.job == job.id and newest.restart == job.restart
    if mine and _status(folder, newest.began) == "finished":  # cut off while it brought its record to MLflow
        return "done"
    return "stuck" if fruitless_starts(folder, job) >= settings.restart.limit else "requeue"


def _status(folder: Path, since: float = 0.0) -> str:
    try:
        return last_status(folder, since)
    except InputError:
        return ""


def _failed_node(endings: list[Ending]) -> str:
    """The node that failed alone, where that can be told."""
    try:
        return failed_node(job_hosts(), endings)
    except InputError:  # the controller is away: what else is to be said matters more
        return ""


def _requeue(job: Job, avoid: str, line: str) -> None:
    """Requeue a running job once, and say so; nothing happens if it is over, or was requeued by somebody else."""
    # Slurm ends this very process when it requeues the job; what is left to do shall still be done.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        state = _scontrol("show", "job", "-o", job.id)
        if state.returncode == 0:
            if not _runs(state.stdout, job):
                return
            done = _scontrol("requeue", job.id)
            if done.returncode == 0:
                print(line, flush=True)
                if avoid:
                    _exclude(job, avoid, _fields(state.stdout).get("ExcNodeList", ""))
                return
            if not _unanswered(done.stderr):
                raise InputError(f"job {job.id} cannot be requeued: {_line(done.stderr)}; submit it again to go on")
        if time.monotonic() > deadline:
            raise InputError(f"the controller does not answer: {_line(state.stderr)}; submit the job again to go on")
        time.sleep(5)


def _exclude(job: Job, node: str, excluded: str) -> None:
    """Have the job avoid one more node, which Slurm allows only while it waits to start again."""
    nodes = ",".join(filter(None, [excluded.replace("(null)", ""), node]))
    for _ in range(_TRIES):
        if _scontrol("update", f"JobId={job.id}", f"ExcNodeList={nodes}").returncode == 0:
            return
        time.sleep(0.1)


def _runs(shown: str, job: Job) -> bool:
    """Whether Slurm still holds this start of the job for running: not cancelled, not started elsewhere."""
    fields = _fields(shown)
    return fields.get("JobState") == "RUNNING" and fields.get("Restarts") == str(job.restart)


def _fields(shown: str) -> dict[str, str]:
    return dict(re.findall(r"(\S+?)=(\S*)", shown))


def _unanswered(error: str) -> bool:
    return "Unable to contact" in error or "Socket timed out" in error or "Connection" in error


def _scontrol(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["scontrol", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InputError("scontrol is not here, so the job cannot be requeued; submit it again to go on") from error


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
