"""`pose runs list` and `pose runs gc`: what is told of runs, and what may be deleted."""

import json
import os
import time
from pathlib import Path

import pytest

import pose
from cluster.run_folder import held
from cluster.runs import find_runs, is_held, read_state
from cluster.tracking.journal import Journal

pytestmark = pytest.mark.unit


def make_run(folder: Path, status: str = "finished", steps: tuple[int, ...] = (10, 20, 30)) -> Path:
    """A run as a training leaves it: best at its first validation, a checkpoint for each."""
    with Journal(folder) as journal:
        journal.status("running")
        for step in steps:
            journal.metrics(step, {"train/epoch": step / 10, "val/mpjpe_mm": 50.0 + step})
            checkpoint(folder, step)
        if status != "running":
            journal.status(status)
    (folder / "run.yaml").write_text("name: x\nepochs: 3\n")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / "checkpoints" / f"step-{step:08d}"
    (path / "state").mkdir(parents=True)
    (path / "state" / "model.pt").write_bytes(bytes(1000))
    (path / "complete.json").write_text(json.dumps({"files": {"state/model.pt": {"bytes": 1000}}}))
    return path


def leftovers(folder: Path, hours: float) -> list[Path]:
    """What interrupted writes leave, so old."""
    partial = folder / "checkpoints" / "step-00000040.2.partial"
    (partial / "state").mkdir(parents=True)
    files = [folder / ".model.safetensors.writing-77", folder / "code" / ".abc.writing-77"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("half")
    then = time.time() - 3600 * hours
    for path in (partial, *files):
        os.utime(path, (then, then))
    return [partial, *files]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_finished_run_keeps_the_newest_and_the_best(tmp_path, capsys):
    run = make_run(tmp_path / "a")
    assert pose.main(["runs", "gc", str(tmp_path)]) == 0
    assert "to delete this: pose runs gc" in capsys.readouterr().out
    assert len(names(run)) == 3, "a look has deleted something"
    assert pose.main(["runs", "gc", str(tmp_path), "--apply", "true"]) == 0
    assert "1 kB freed" in capsys.readouterr().out
    assert names(run) == ["step-00000010", "step-00000030"]
    assert (run / "model.safetensors").read_bytes() == b"weights"
    assert pose.main(["runs", "gc", str(tmp_path)]) == 0
    assert "nothing to free" in capsys.readouterr().out


def test_a_damaged_newest_checkpoint_does_not_count_as_the_one_that_stays(tmp_path):
    run = make_run(tmp_path / "a")
    (run / "checkpoints/step-00000030/state/model.pt").write_bytes(b"cut short")
    pose.main(["runs", "gc", str(tmp_path), "--apply", "true"])
    assert names(run) == ["step-00000010", "step-00000020"]


def test_without_any_whole_checkpoint_none_is_touched(tmp_path):
    run = make_run(tmp_path / "a")
    for file in run.glob("checkpoints/*/complete.json"):
        file.unlink()
    pose.main(["runs", "gc", str(tmp_path), "--apply", "true"])
    assert len(names(run)) == 3


@pytest.mark.parametrize("status", ["stopped", "failed", "running"])
def test_a_run_that_may_be_resumed_keeps_all_but_old_leftovers(status, tmp_path):
    run = make_run(tmp_path / "a", status)
    old = leftovers(run, hours=2)
    pose.main(["runs", "gc", str(tmp_path), "--apply", "true"])
    assert names(run) == ["step-00000010", "step-00000020", "step-00000030"]
    assert not any(path.exists() for path in old)


def test_fresh_leftovers_stay(tmp_path):
    run = make_run(tmp_path / "a")
    new = leftovers(run, hours=0.5)
    pose.main(["runs", "gc", str(tmp_path), "--apply", "true"])
    assert all(path.exists() for path in new)


def test_a_held_run_is_never_touched(tmp_path, capsys):
    run = make_run(tmp_path / "a")
    old = leftovers(run, hours=2)
    with held(run):
        assert is_held(run)
        assert read_state(run).state == "running"
        pose.main(["runs", "gc", str(tmp_path), "--apply", "true"])
        assert "nothing to free" in capsys.readouterr().out
        assert len(names(run)) == 4
        assert all(path.exists() for path in old)
    assert not is_held(run)
    assert read_state(run).state == "finished"


def test_a_run_that_begins_between_the_look_and_the_deletion_is_left_alone(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "a")
    monkeypatch.setattr("cluster.runs.is_held", lambda folder: False)
    with held(run):
        pose.main(["runs", "gc", str(tmp_path), "--apply", "true"])
    assert "left alone" in capsys.readouterr().out
    assert len(names(run)) == 3


def test_only_the_newest_copy_of_code_stays_with_a_finished_run(tmp_path):
    for status, kept in (("finished", ["new"]), ("stopped", ["new", "old"])):
        run = make_run(tmp_path / status, status)
        for age, name in enumerate(("new", "old")):
            (run / "code" / name).mkdir(parents=True)
            os.utime(run / "code" / name, (1e9 - age, 1e9 - age))
        pose.main(["runs", "gc", str(tmp_path), "--apply", "true"])
        assert sorted(path.name for path in (run / "code").iterdir()) == kept


def test_what_is_no_folder_of_its_own_is_not_followed(tmp_path):
    run, elsewhere = make_run(tmp_path / "runs" / "a"), tmp_path / "elsewhere"
    checkpoint(elsewhere, 5)
    (run / "checkpoints" / "step-00000005").symlink_to(elsewhere / "checkpoints" / "step-00000005")
    pose.main(["runs", "gc", str(tmp_path / "runs"), "--apply", "true"])
    assert (elsewhere / "checkpoints/step-00000005/state/model.pt").is_file()


def test_the_list_tells_state_score_and_searches_below(tmp_path, capsys):
    make_run(tmp_path / "done")
    make_run(tmp_path / "search" / "trial-1", "running", steps=(10,))
    assert [path.name for path in find_runs(tmp_path)] == ["done", "trial-1"]
    assert pose.main(["runs", "list", str(tmp_path)]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if "mm" in line}
    assert rows["done"][:7] == ["finished", "30", "3.0", "of", "3", "60.0", "mm"]
    assert rows["search/trial-1"][:2] == ["killed", "10"]


def test_what_was_rewound_does_not_count(tmp_path):
    run = make_run(tmp_path / "a", "running")
    with Journal(run) as journal:
        journal.metrics(40, {"val/mpjpe_mm": 1.0})
        journal.rewind(20)
    state = read_state(run)
    assert (state.step, state.best_mm, state.best_step) == (20, 60.0, 10)


def test_an_empty_folder_and_a_missing_one(tmp_path, capsys):
    assert pose.main(["runs", "list", str(tmp_path)]) == 0
    assert "no run in" in capsys.readouterr().out
    for command in ("list", "gc"):
        assert pose.main(["runs", command, str(tmp_path / "nowhere")]) == 1
        assert "is not a folder" in capsys.readouterr().err
