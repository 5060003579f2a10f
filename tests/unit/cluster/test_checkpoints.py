"""Which checkpoints count and which stay, without an engine."""

import io
import pickle
import threading
from pathlib import Path

import pytest
import torch

from cluster.endings import NeverAgain, TryAgain
from cluster.engine import checkpoint as checkpoint_module
from cluster.engine.checkpoint import Checkpoints
from cluster.fence import Fence, raise_fence
from cluster.world import Job
from poselib.errors import InputError

pytestmark = pytest.mark.unit


class FakeEngine:
    """Has one number for its state."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def gather(self, keep: bool) -> dict[str, torch.Tensor]:
        return {"value": torch.tensor([self.value])}

    def misfit(self, state: dict[str, torch.Tensor]) -> str:
        return "" if state.keys() == {"value"} else "other names"

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        self.value = float(state["value"])


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.mkdir, (self.path,)


def torch_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save({"module": value}, buffer)
    return buffer.getvalue()


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
    (folder / f"step-{step:08d}" / "state.safetensors").write_text("?")


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
    checkpoints = saved(folder, 10)
    (folder / "step-00000020.1.partial").write_text("in the way of a folder")
    with pytest.raises(TryAgain, match=r"step-00000020 could not be written: .*; the previous one is untouched"):
        checkpoints.save(FakeEngine(), 20, {})
    assert checkpoints.newest() == folder / "step-00000010"


def test_what_was_saved_comes_back(folder):
    checkpoints, engine = saved(folder), FakeEngine(1.5)
    checkpoints.save(engine, 10, {"best_mm": float("inf"), "shard_sets": {"h36m": "0f"}})
    engine.value = 0.0
    step, extra = checkpoints.load(engine, folder / "step-00000010")
    assert (engine.value, step, extra) == (1.5, 10, {"best_mm": float("inf"), "shard_sets": {"h36m": "0f"}})


def test_the_best_one_stays(folder):
    checkpoints = saved(folder)
    for step in (10, 20, 30, 40):
        checkpoints.save(FakeEngine(), step, {}, best=min(step, 20))
    assert names(folder) == ["step-00000020", "step-00000030", "step-00000040"]


def test_a_pickle_is_refused_and_not_run(folder, tmp_path):
    checkpoints = saved(folder, 10)
    for content in (pickle.dumps(Payload(tmp_path / "owned")), torch_pickle(Payload(tmp_path / "owned"))):
        (folder / "step-00000010" / "state.safetensors").write_bytes(content)
        with pytest.raises(InputError, match="no file of tensors alone and is refused"):
            checkpoints.load(FakeEngine(), folder / "step-00000010")
    assert not (tmp_path / "owned").exists()


def test_another_architecture_is_refused(folder):
    engine = FakeEngine()
    engine.misfit = lambda state: "conv.weight is [3] there, [4] here"
    with pytest.raises(InputError, match=r"of another architecture: conv.weight is \[3\] there"):
        saved(folder, 10).load(engine, folder / "step-00000010")


class TestAsynchronous:
    """The training goes on while a thread writes."""

    @pytest.fixture
    def gate(self, monkeypatch) -> threading.Event:
        """The disk takes what is written once this is set."""
        gate, write = threading.Event(), checkpoint_module.save_file

        def slow(*words: object) -> None:
            assert gate.wait(60)
            write(*words)

        monkeypatch.setattr(checkpoint_module, "save_file", slow)
        yield gate
        gate.set()

    def test_it_counts_when_it_is_written_and_holds_the_state_of_its_step(self, folder, gate):
        checkpoints, weights = saved(folder), torch.tensor([1.0])
        engine = FakeEngine()
        engine.gather = lambda keep: {"value": weights.clone()}
        checkpoints.save(engine, 10, {}, wait=False)
        weights += 1
        assert checkpoints.newest() is None
        gate.set()
        checkpoints.finish()
        checkpoints.load(engine, checkpoints.newest())
        assert engine.value == 1.0

    def test_one_at_a_time(self, folder, gate):
        checkpoints, engine = saved(folder), FakeEngine()
        checkpoints.save(engine, 10, {}, wait=False)
        second = threading.Thread(target=checkpoints.save, args=(engine, 20, {}))
        second.start()
        assert not (folder / "step-00000020.1.partial").exists()
        gate.set()
        second.join(60)
        assert names(folder) == ["step-00000010", "step-00000020"]

    def test_an_error_is_told_at_the_next_save(self, folder):
        checkpoints, engine = saved(folder), FakeEngine()
        (folder / "step-00000010.1.partial").write_text("in the way of a folder")
        checkpoints.save(engine, 10, {}, wait=False)
        with pytest.raises(TryAgain, match="step-00000010 could not be written"):
            checkpoints.save(engine, 20, {}, wait=False)

    def test_a_start_that_is_taken_over_while_it_writes_does_not_commit(self, folder, gate):
        checkpoints = saved(folder)
        raise_fence(folder.parent, Job("7", 0), "n1")
        checkpoints.save(FakeEngine(), 10, {}, wait=False)
        raise_fence(folder.parent, Job("7", 1), "n2")
        gate.set()
        with pytest.raises(NeverAgain, match="start 2 of this run"):
            checkpoints.finish()
        assert checkpoints.newest() is None

    def test_one_that_ends_because_of_something_else_leaves_it_whole(self, folder, gate):
        checkpoints = saved(folder)
        checkpoints.save(FakeEngine(), 10, {}, wait=False)
        gate.set()
        checkpoints.close()
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


def test_a_start_that_is_taken_over_while_it_writes_does_not_commit(folder, monkeypatch):
    checkpoints = saved(folder, 10)
    write = checkpoint_module.save_file

    def overtaken(*words: object) -> None:
        write(*words)
        for restart in (1, 2):
            raise_fence(folder.parent, Job("7", restart), "n2")

    monkeypatch.setattr(checkpoint_module, "save_file", overtaken)
    with pytest.raises(NeverAgain, match="start 2 of this run"):
        checkpoints.save(FakeEngine(), 20, {})
    monkeypatch.setattr(checkpoint_module, "save_file", write)
    assert names(folder) == ["step-00000010", "step-00000020.1.partial"]
    saved(folder, 15, start=2)
    assert names(folder) == ["step-00000010", "step-00000015"]


def test_a_requeued_job_that_came_first_keeps_the_older_start_out(folder):
    raise_fence(folder.parent, Job("7", 3), "n2")
    with pytest.raises(NeverAgain, match="job 7, restart 3"):
        raise_fence(folder.parent, Job("7", 2), "n1")


def test_a_fence_that_cannot_be_read_lets_nobody_write(folder):
    checkpoints = saved(folder, 10)
    (folder.parent / "incarnation.json").mkdir()
    with pytest.raises(TryAgain, match=r"incarnation.json could not be read .*: which start may write here"):
        checkpoints.save(FakeEngine(), 20, {})
    (folder.parent / "incarnation.json").rmdir()
    (folder.parent / "incarnation.json").write_text('{"number": 1')
    with pytest.raises(TryAgain, match=r"incarnation.json is damaged"):
        raise_fence(folder.parent, Job("7", 1), "n1")
    assert names(folder) == ["step-00000010"]
