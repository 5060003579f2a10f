"""A rank that meets nobody, or loses the others, says so in one line; what is its own fault keeps its traceback."""

import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from cluster.endings import LostOthers, TryAgain
from cluster.engine.engine import leave_world
from cluster.rank import _join, _tells_of_others
from cluster.settings import EngineSettings, Run
from cluster.settings_data import DataSettings
from cluster.world import World, free_port

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        ("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:5012", True),
        ("Timed out waiting 60000ms for recv operation to complete", True),
        ("writev [10.0.0.2]:5012: Broken pipe", True),
        (
            "NCCL error in: NCCLUtils.hpp:268, remote process exited or there was a network error\nncclRemoteError: ",
            True,
        ),
        ("[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE)", True),
        ("NCCL communicator was aborted on rank 1.", True),
        (
            "NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
            False,
        ),
        ("NCCL error: invalid usage", False),
        ("CUDA error: out of memory", False),
    ],
)
def test_only_words_of_others_speak_of_others(words: str, lost: bool) -> None:
    assert _tells_of_others(RuntimeError(words)) is lost


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_that_do_not_come_are_one_line_with_the_meeting_place(tmp_path: Path, rank: int, monkeypatch) -> None:
    world = World(rank, 2, rank, 2, port=free_port())
    for name, value in world.variables().items():
        monkeypatch.setenv(name, value)
    run = Run(name="x", data=DataSettings(h36m=tmp_path), engine=EngineSettings(timeout_s=2))
    threads = torch.get_num_threads()
    try:
        with pytest.raises(
            LostOthers, match=rf"^rank {rank} on \S+ did not meet the others at 127.0.0.1, port {world.port}: .+$"
        ):
            _join(run, world, torch.device("cpu"))
    finally:
        leave_world()
        torch.set_num_threads(threads)


def test_a_port_that_is_taken_says_where(tmp_path: Path, monkeypatch) -> None:
    def taken(*_: object) -> None:
        raise dist.DistNetworkError("The server socket has failed to listen on any local network address. EADDRINUSE")

    monkeypatch.setattr("cluster.rank.join_world", taken)
    run = Run(name="x", data=DataSettings(h36m=tmp_path))
    with pytest.raises(TryAgain, match=re.escape("n1, port 4242: taken on")) as error:
        _join(run, World(0, 2, address="n1", port=4242), torch.device("cpu"))
    assert not isinstance(error.value, LostOthers)
