"""A run's folder belongs to one run, and to one process at a time."""

import errno
import fcntl
from dataclasses import replace

import pytest

from cluster.fence import raise_fence
from cluster.run_folder import claim, held
from cluster.runs import is_held
from cluster.settings import BatchSettings, EngineSettings, OptimizerSettings, Run
from cluster.settings_data import DataSettings
from cluster.world import Job
from poselib.errors import InputError

pytestmark = pytest.mark.unit


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(name="x", data=DataSettings(h36m=tmp_path / "set"), runs_dir=tmp_path, batch=BatchSettings(micro=8))


def test_the_global_batch_of_the_first_start_stays(run):
    assert claim(run, 16).batch.global_ == 16
    assert claim(run, 64).batch.global_ == 16


def test_other_ranks_or_devices_may_resume(run):
    claim(run, 16)
    assert claim(replace(run, engine=EngineSettings(ranks=4)), 32).engine.ranks == 4


def test_another_run_is_refused_with_what_differs(run):
    claim(run, 16)
    with pytest.raises(InputError, match=r"optimizer.lr 0.0001 -> 0.5"):
        claim(replace(run, optimizer=OptimizerSettings(lr=0.5)), 16)


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/x cannot be written"):
        claim(replace(run, runs_dir=tmp_path / "file"), 16)


def test_a_second_process_is_refused(tmp_path):
    with held(tmp_path), pytest.raises(InputError, match="is being trained by another process"), held(tmp_path):
        pass


@pytest.fixture
def flock(monkeypatch) -> list[int]:
    """What every lock is answered with from now on."""
    answer: list[int] = []

    def fail(*_: object) -> None:
        raise OSError(answer[0], "what the kernel says")

    monkeypatch.setattr(fcntl, "flock", fail)
    return answer


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_told_once_and_holds_nobody_up(tmp_path, capsys, flock, number):
    flock.append(number)
    with held(tmp_path):
        assert not is_held(tmp_path)
        raise_fence(tmp_path, Job("7"), "n1")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "has no locks (flock)" in said


def test_a_file_system_that_fails_is_not_another_process(tmp_path, flock):
    flock.append(errno.EIO)
    with pytest.raises(InputError, match="cannot be written"), held(tmp_path):
        pass
