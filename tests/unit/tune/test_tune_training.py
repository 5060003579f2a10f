"""Why a trial's training ended, and what environment it gets."""

import signal

import pytest

from tune.training import child_environment, reason

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("log", "code", "wanted"),
    [
        (
            "pose train: the loss of step 5 is nan; lower optimizer.lr or set optimizer.clip\n"
            "pose train: training ended early (rank 0: exit code 1); what it had completed is kept\n",
            1,
            "diverged: the loss of step 5 is nan; lower optimizer.lr or set optimizer.clip",
        ),
        (
            "Traceback (most recent call last):\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n"
            "pose train: training ended early (rank 0: exit code 1); what it had completed is kept\n",
            1,
            "out of memory: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
        ),
        (
            "pose train: training ended early (rank 1: killed by SIGKILL); what it had completed is kept\n",
            1,
            "out of memory, most likely: the system killed a rank (SIGKILL)",
        ),
        ("", -signal.SIGKILL, "out of memory, most likely: the system killed a rank (SIGKILL)"),
        ("stopped by SIGTERM; run the same command again\n", 0, "its training was stopped from outside"),
        ("ValueError: something\n", 1, "ValueError: something"),
        ("", 3, "exit code 3"),
    ],
)
def test_the_reason_is_the_trainings_own(log, code, wanted):
    assert reason(log, code) == wanted


def test_ranks_of_a_trial_know_no_launcher_around_the_search():
    found = child_environment(
        {
            "SLURM_PROCID": "1",
            "RANK": "0",
            "MASTER_ADDR": "x",
            "RAY_JOB_ID": "1",
            "CUDA_VISIBLE_DEVICES": "3",
            "HOME": "h",
        }
    )
    assert found == {"CUDA_VISIBLE_DEVICES": "3", "HOME": "h"}
