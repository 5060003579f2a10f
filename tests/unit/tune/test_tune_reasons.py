"""Why a trial is over."""

import signal

import pytest

from tune.events import last_words
from tune.reasons import reason

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


def test_ray_has_the_last_word_on_what_left_none_itself(tmp_path):
    error = tmp_path / "error.txt"
    assert last_words(error) == ""
    error.write_text(
        "Failure # 1 (occurred at 2026-01-01)\nThe actor died.\n"
        "Failure # 2 (occurred at 2026-01-02)\nray::Trial.train()\ntune.reasons.TrialFailed: t0003 has no checkpoint\n"
    )
    assert last_words(error) == "t0003 has no checkpoint"
