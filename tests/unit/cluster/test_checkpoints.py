"""Which checkpoints count and which stay, without an engine."""

import json
from pathlib import Path

import pytest

from cluster.engine.checkpoint import Checkpoints
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


def saved(folder: Path, *steps: int, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, rank=0, keep=keep, notice=lambda line: None)
    for step in steps:
        checkpoints.save(FakeEngine(), step, {})
    return checkpoints


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def spoil(folder: Path, step: int) -> None:
    (folder / f"step-{step:08d}" / "state" / "state.pt").write_text("?")


def test_the_newest_are_kept(tmp_path):
    checkpoints = saved(tmp_path, 10, 20, 30)
    assert names(tmp_path) == ["step-00000020", "step-00000030"]
    assert checkpoints.newest() == tmp_path / "step-00000030"


def test_a_damaged_one_is_passed_over_and_void_after_the_next_save(tmp_path):
    checkpoints = saved(tmp_path, 100, 200, 300, keep=3)
    spoil(tmp_path, 200)
    spoil(tmp_path, 300)
    assert checkpoints.newest() == tmp_path / "step-00000100"
    saved(tmp_path, 120)
    assert names(tmp_path) == ["step-00000100", "step-00000120"]
    assert checkpoints.newest() == tmp_path / "step-00000120"


def test_what_was_not_completed_does_not_count(tmp_path):
    checkpoints = saved(tmp_path, 10)
    (tmp_path / "step-00000020.partial").mkdir()
    assert checkpoints.newest() == tmp_path / "step-00000010"


def test_nothing_whole_is_an_error_not_a_new_start(tmp_path):
    checkpoints = saved(tmp_path, 10)
    spoil(tmp_path, 10)
    with pytest.raises(InputError, match="no checkpoint is whole"):
        checkpoints.newest()


def test_no_checkpoint_is_a_new_start(tmp_path):
    assert Checkpoints(tmp_path / "none", 0, 2).newest() is None


def test_a_write_that_fails_leaves_the_previous_one(tmp_path):
    checkpoints, broken = saved(tmp_path, 10), FakeEngine()
    broken.problem = "no space left"
    with pytest.raises(InputError, match="could not be written: no space left; the previous one is untouched"):
        checkpoints.save(broken, 20, {})
    assert checkpoints.newest() == tmp_path / "step-00000010"
