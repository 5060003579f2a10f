"""Which checkpoints count and which stay, without an engine."""

import json
from pathlib import Path

import pytest

from cluster.endings import NeverAgain
from cluster.engine.checkpoint import Checkpoints
from cluster.fence import Fence, raise_fence
from cluster.world import Job
from poselib.errors import InputError

pytestmark = pytest.mark.unit


class FakeEngine:
    """Writes one file where DeepSpeed would write its state."""

    def __init__(self) -> None:
        self.deepspeed = self
        self.problem = ""

    def use_safe_files(self) -> "FakeEngine":
        return self

    def save_checkpoint(self, folder: str, tag: str, client_state: dict, save_latest: bool) -> None:
        (Path(folder) / tag).mkdir(parents=True)
        (Path(folder) / tag / "state.pt").write_text(json.dumps(client_state))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def saved(folder: Path, *steps: int, keep: int = 2, start: int = 1) -> Checkpoints:
    fence = Fence(folder.parent, start)
    checkpoints = Checkpoints(folder, rank=0, keep=keep, fence=fence, notice=lambda line: None)
    for step in steps:
        checkpoints.save(FakeEngine(), step, {})
    return checkpoints


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def spoil(folder: Path, step: int) -> None:
    (folder / f"step-{step:08d}" / "state" / "state.pt").write_text("?")


def test_the_newest_are_kept(folder):
    checkpoints = saved(folder, 10, 20, 30)
    assert names(folder) == ["step-00000020", "step-00000030"]
    assert checkpoints.newest() == folder / "step-00000030"


def test_a_damaged_one_is_passed_over_and_void_after_the_next_save(folder):
    checkpoints = saved(folder, 100, 200, 300, keep=3)
    spoil(folder, 200)
    spoil(folder, 300)
    assert checkpoints.newest() == folder / "step-00000100"
    saved(folder, 120)
    assert names(folder) == ["step-00000100", "step-00000120"]
    assert checkpoints.newest() == folder / "step-00000120"


def test_what_was_not_completed_does_not_count(folder):
    checkpoints = saved(folder, 10)
    (folder / "step-00000020.partial").mkdir()
    assert checkpoints.newest() == folder / "step-00000010"


def test_nothing_whole_is_an_error_not_a_new_start(folder):
    checkpoints = saved(folder, 10)
    spoil(folder, 10)
    with pytest.raises(InputError, match="no checkpoint is whole"):
        checkpoints.newest()


def test_no_checkpoint_is_a_new_start(folder):
    assert Checkpoints(folder / "none", 0, 2, Fence(folder, 1)).newest() is None


def test_a_write_that_fails_leaves_the_previous_one(folder):
    checkpoints, broken = saved(folder, 10), FakeEngine()
    broken.problem = "no space left"
    with pytest.raises(InputError, match="could not be written: no space left; the previous one is untouched"):
        checkpoints.save(broken, 20, {})
    assert checkpoints.newest() == folder / "step-00000010"


def test_a_start_that_was_taken_over_changes_nothing(folder):
    job = Job("7", 0)
    assert raise_fence(folder.parent, job, "n1").number == 1
    stale = saved(folder, 10, 20, start=1)
    assert raise_fence(folder.parent, Job("7", 1), "n2").number == 2
    saved(folder, 30, start=2)
    spoil(folder, 30)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for step in (25, 30, 40):
        with pytest.raises(NeverAgain, match=r"start 2 of this run \(job 7, restart 1, on n2\) has taken over"):
            stale.save(FakeEngine(), step, {})
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_start_that_is_taken_over_while_it_writes_does_not_commit(folder):
    checkpoints, engine = saved(folder, 10), FakeEngine()
    write = engine.save_checkpoint

    def overtaken(*words: str, **named: str) -> None:
        write(*words, **named)
        for restart in (1, 2):
            raise_fence(folder.parent, Job("7", restart), "n2")

    engine.save_checkpoint = overtaken
    with pytest.raises(NeverAgain, match="start 2 of this run"):
        checkpoints.save(engine, 20, {})
    assert names(folder) == ["step-00000010", "step-00000020.1.partial"]
    saved(folder, 15, start=2)
    assert names(folder) == ["step-00000010", "step-00000015"]


def test_a_requeued_job_that_came_first_keeps_the_older_start_out(folder):
    raise_fence(folder.parent, Job("7", 3), "n2")
    with pytest.raises(NeverAgain, match="job 7, restart 3"):
        raise_fence(folder.parent, Job("7", 2), "n1")
