"""Ranks end by what all of them know: one says it, and none is left waiting."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.endings import NEVER_AGAIN, TRY_AGAIN
from cluster.fence import raise_fence
from cluster.world import NO_JOB, World, free_port

pytestmark = pytest.mark.integration

RANK = Path(__file__).with_name("agreement_ranks.py")
WORDS = ("main", "model", "one", "older", "checkpoint", "slow", "gone")
SIZE = 3

Told = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What each of three ranks has told of each word."""
    folder = tmp_path_factory.mktemp("run")
    raise_fence(folder, NO_JOB, "n1")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-00000010.1.partial").write_text("in the way of a folder")
    port = free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, str(RANK), str(folder), *WORDS],
            env=os.environ | World(rank, SIZE, rank, SIZE, port=port).variables() | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(SIZE)
    ]
    try:
        shown = [rank.communicate(timeout=200)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * SIZE, "\n".join(shown)
    lines = [[json.loads(line) for line in text.splitlines() if line.startswith("{")] for text in shown]
    return {word: [of_rank[index] for of_rank in lines] for index, word in enumerate(WORDS)}


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [
        ("main", TRY_AGAIN, "pictures/x.jpg: No space left on device"),
        ("model", TRY_AGAIN, "model.safetensors could not be written: No space left on device"),
        ("one", TRY_AGAIN, "rank 2 on "),
        ("older", NEVER_AGAIN, "start 1 of this run"),
        ("checkpoint", TRY_AGAIN, "step-00000010 could not be written: "),
    ],
)
def test_rank_0_says_it_and_all_end_with_the_same_code(told: Told, word: str, code: int, said: str) -> None:
    main, *others = told[word]
    assert said in main["said"]
    assert "\n" not in main["said"]
    assert main["code"] == code
    assert [(rank["said"], rank["code"]) for rank in others] == [("", code)] * (SIZE - 1)


def test_the_others_stay_until_rank_0_is_ready(told: Told) -> None:
    main, *others = told["slow"]
    assert min(rank["time"] for rank in others) > told["checkpoint"][0]["time"] + 2
    assert [rank["code"] for rank in (main, *others)] == [0] * SIZE


def test_the_others_go_once_rank_0_has_gone(told: Told) -> None:
    main, *others = told["gone"]
    assert max(rank["time"] for rank in others) < main["time"] + 50
