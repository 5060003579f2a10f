"""What follows when the ranks of a job have ended."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.endings import NEVER_AGAIN, TRY_AGAIN, Ending, note_ending
from cluster.fence import fruitless_starts, raise_fence, read_incarnation
from cluster.requeue import RequeueSettings, _runs, judge, requeue
from cluster.settings import RestartSettings
from cluster.settings_data import DataSettings
from cluster.tracking.journal import Journal, Status
from cluster.world import Job
from poselib.errors import InputError

pytestmark = pytest.mark.unit


def ended(folder: Path, code: int) -> RequeueSettings:
    return RequeueSettings(name="run", runs_dir=folder, data=DataSettings(h36m=folder / "set"), exit_code=code)


@pytest.fixture
def run(tmp_path) -> Path:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path / "run"


def save(run: Path, step: int) -> None:
    (run / "checkpoints" / f"step-{step:08d}").mkdir()


def log(run: Path, *statuses: Status) -> None:
    with Journal(run) as journal:
        for status in statuses:
            journal.status(status)


@pytest.mark.parametrize(("status", "verdict"), [("stopped", "requeue"), ("finished", "done")])
def test_a_good_end_is_requeued_only_when_it_was_a_stop(run, status, verdict):
    raise_fence(run, Job("7"), "n1")
    log(run, "running", status)
    assert judge(ended(run.parent, 0), Job("7")) == verdict


@pytest.mark.parametrize("code", [TRY_AGAIN, 137, 143])
def test_a_run_that_has_finished_is_done_however_its_ranks_ended(run, code):
    raise_fence(run, Job("7"), "n1")
    log(run, "running", "finished")
    assert judge(ended(run.parent, code), Job("7")) == "done"


def test_what_an_earlier_start_finished_says_nothing_of_this_one(run):
    raise_fence(run, Job("6"), "n1")
    log(run, "running", "finished")
    assert judge(ended(run.parent, 137), Job("7")) == "requeue"  # killed before it came to the folder
    raise_fence(run, Job("7"), "n1")
    assert judge(ended(run.parent, 137), Job("7")) == "requeue"


@pytest.mark.parametrize(("final", "verdict"), [(True, "failed"), (False, "requeue")])
def test_a_rank_that_would_meet_it_again_outweighs_those_that_srun_killed(run, final, verdict):
    raise_fence(run, Job("7"), "n1")
    ranks = [Ending(0, "n1", "the loss is nan", False, final), Ending(1, "n2", "lost the other ranks", True)]
    assert judge(ended(run.parent, 137), Job("7"), ranks) == verdict


@pytest.mark.parametrize(
    ("code", "verdict"),
    [(1, "failed"), (2, "failed"), (NEVER_AGAIN, "failed"), (TRY_AGAIN, "requeue"), (137, "requeue"), (143, "requeue")],
)
def test_only_what_may_go_better_is_tried_again(run, code, verdict):
    raise_fence(run, Job("7"), "n1")
    assert judge(ended(run.parent, code), Job("7")) == verdict


def test_starts_without_a_new_checkpoint_are_counted_by_job(run):
    counts = []
    for restart, step in enumerate([0, 0, 5, 0, 0, 0]):
        job = Job("7", restart)
        raise_fence(run, job, "n1")
        if step:
            save(run, step)
        counts.append((fruitless_starts(run, job), judge(ended(run.parent, 137), job)))
    assert counts == [(1, "requeue"), (2, "requeue"), (0, "requeue"), (1, "requeue"), (2, "requeue"), (3, "stuck")]
    raise_fence(run, Job("8"), "n1")
    assert fruitless_starts(run, Job("8")) == 1


def test_starts_that_never_reached_the_folder_count_too(run):
    assert judge(ended(run.parent, 137), Job("7", 1)) == "requeue"
    assert judge(ended(run.parent, 137), Job("7", 2)) == "stuck"


def test_a_start_that_was_left_behind_requeues_nothing(run):
    raise_fence(run, Job("7", 0), "n1")
    raise_fence(run, Job("7", 1), "n2")
    assert read_incarnation(run).number == 2
    assert judge(ended(run.parent, 137), Job("7", 0)) == "stale"


@pytest.mark.parametrize(
    ("shown", "runs"),
    [
        ("JobId=7 JobName=x Requeue=1 Restarts=1 JobState=RUNNING Reason=None", True),
        ("JobId=7 JobName=x Requeue=1 Restarts=2 JobState=RUNNING Reason=None", False),
        ("JobId=7 JobName=x Requeue=1 Restarts=1 JobState=CANCELLED Reason=None", False),
        ("", False),
    ],
)
def test_only_a_running_job_of_this_start_is_requeued(shown, runs):
    assert _runs(shown, Job("7", 1)) is runs


@pytest.fixture
def scontrol(tmp_path, monkeypatch) -> Callable[[str], Path]:
    """Stands in for Slurm's: shows job 7 in the state given, and keeps what else it is asked."""
    asked = tmp_path / "asked"
    for name, value in {"JOB_ID": "7", "JOB_NODELIST": "n[1-2]"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def with_state(state: str) -> Path:
        stub = tmp_path / "bin" / "scontrol"
        stub.parent.mkdir()
        stub.write_text(
            f'#!/bin/sh\ncase "$2" in job) echo "JobId=7 JobState={state} Restarts=0 ExcNodeList=(null)" ;;\n'
            f'hostnames) echo n1; echo n2 ;;\n*) echo "$@" >> {asked} ;; esac\n'
        )
        stub.chmod(0o755)
        monkeypatch.setenv("PATH", f"{stub.parent}:/usr/bin:/bin")
        return asked

    return with_state


def without(folder: Path) -> RequeueSettings:
    return replace(ended(folder, 137), restart=RestartSettings(exclude_nodes=True))


def test_a_node_is_excluded_once_the_job_waits_again(run, scontrol, capsys):
    asked = scontrol("RUNNING")
    raise_fence(run, Job("7"), "n1")
    note_ending(run, Job("7"), Ending(0, "n1", "lost the other ranks", True))
    requeue(without(run.parent))
    assert asked.read_text().splitlines() == ["requeue 7", "update JobId=7 ExcNodeList=n2"]
    assert (
        "goes back into the queue without n2, as its ranks ended with exit code 137 (on n2)" in capsys.readouterr().out
    )


def test_a_cancelled_job_is_not_said_to_go_back(run, scontrol, capsys):
    asked = scontrol("CANCELLED")
    raise_fence(run, Job("7"), "n1")
    requeue(without(run.parent))
    assert not asked.exists()
    assert capsys.readouterr().out == ""


def test_the_reason_is_told_where_the_nodes_cannot_be(run, scontrol, monkeypatch):
    raise_fence(run, Job("7"), "n1")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with pytest.raises(InputError, match="3 starts in a row have made no checkpoint after step 0; the last ended with"):
        requeue(without(run.parent))
