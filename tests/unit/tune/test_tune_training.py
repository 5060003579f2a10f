"""A trial's training from the outside: its journal, its end, another trial's state; with processes that run no code."""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.config import dump, load
from cluster.run_folder import RUN_YAML, held
from cluster.settings import DataSettings, Run
from cluster.tracking.journal import Journal
from tune.reasons import TrialFailed, noted_failure
from tune.training import Report, Training, child_environment

pytestmark = pytest.mark.unit

METRICS = ("val/mpjpe_mm", "train/images_per_s")


class Ended:
    """Ranks that have ended with a code."""

    def __init__(self, code: int = 0) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        return self.code

    def send_signal(self, number: int) -> None:
        raise AssertionError("they have ended")

    def kill(self) -> None:
        raise AssertionError("they have ended")


def a_run(runs: Path, name: str = "t0000", epochs: int = 4) -> Run:
    return Run(name, DataSettings(h36m="x"), runs_dir=runs, epochs=epochs)


def training(run: Run, write: Callable[[Journal], None], code: int = 0) -> Training:
    """A training that writes into its journal when it is started, and ends."""

    def launch(folder: Path, project: Path) -> Ended:
        with Journal(folder) as journal:
            write(journal)
        return Ended(code)

    return Training(run, METRICS, run.runs_dir, launch)


def validate(journal: Journal, *epochs: int, steps: int = 5) -> None:
    """Some validations, as `pose train` logs them: an epoch has a few samples less than `steps` steps."""
    for epoch in epochs:
        journal.metrics(epoch * steps, {"train/epoch": epoch * 1.01, "train/images_per_s": 9.0})
        journal.metrics(epoch * steps, {"val/mpjpe_mm": 100.0 / epoch})


def checkpoint(run: Run, step: int) -> None:
    folder = run.folder / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "complete.json").write_text("{}")


def test_every_validation_is_a_report_and_the_end_is_the_last(tmp_path):
    def write(journal: Journal) -> None:
        validate(journal, 1, 2, 3, 4)
        journal.status("finished")

    one = training(a_run(tmp_path), write)
    reports = [one.next() for _ in range(4)]
    assert [report.epochs for report in reports] == [1, 2, 3, 4]
    assert [report.last for report in reports] == [False, False, False, True]
    assert reports[1] == Report(10, 2, {"val/mpjpe_mm": 50.0, "train/images_per_s": 9.0})


def test_a_trial_that_takes_over_one_ahead_of_it_comes_to_its_end(tmp_path):
    donor, mine = a_run(tmp_path, "t0001"), a_run(tmp_path)
    with Journal(donor.folder) as journal:
        validate(journal, 1, 2, 3)
    with Journal(mine.folder) as journal:
        validate(journal, 1)
    checkpoint(donor, 15)
    checkpoint(mine, 5)
    (mine.folder / RUN_YAML).write_text(dump(replace(mine, seed=9, batch=replace(mine.batch, global_=48))))

    def write(journal: Journal) -> None:
        journal.rewind(15)
        validate(journal, 4)
        journal.status("finished")

    one = training(mine, write)
    one.take_over(donor.folder, 15)
    assert [path.name for path in (mine.folder / "checkpoints").iterdir()] == ["step-00000015"]
    assert one.next() == Report(20, 4, {"val/mpjpe_mm": 25.0, "train/images_per_s": 9.0}, last=True)
    assert not (mine.folder / RUN_YAML).exists(), "its settings may differ from here on"
    assert load(Run, mine.folder / "train.yaml").batch.global_ == 48, "its steps do not"


def test_a_training_that_has_finished_is_over_however_its_epochs_were_counted(tmp_path):
    def write(journal: Journal) -> None:
        journal.metrics(7, {"val/mpjpe_mm": 3.0, "train/images_per_s": 9.0})
        journal.status("finished")

    one = training(a_run(tmp_path), write)
    assert not one.next().last
    assert one.next() == Report(7, 4, {"val/mpjpe_mm": 3.0, "train/images_per_s": 9.0}, last=True)


def test_a_metric_that_comes_later_is_awaited_and_one_that_never_comes_is_named(tmp_path):
    def write(journal: Journal) -> None:
        journal.metrics(5, {"val/mpjpe_mm": 3.0})
        journal.metrics(10, {"val/mpjpe_mm": 2.0})
        journal.status("finished")

    one = training(a_run(tmp_path), write)
    assert one.next().scores == {"val/mpjpe_mm": 3.0}
    one.next()
    with pytest.raises(TrialFailed, match="train/images_per_s: not logged by the training"):
        one.next()
    assert noted_failure(tmp_path / "t0000") == "train/images_per_s: not logged by the training"


def test_no_number_is_a_failure_for_good(tmp_path):
    def write(journal: Journal) -> None:
        journal.metrics(5, {"val/mpjpe_mm": float("nan")})

    with pytest.raises(TrialFailed, match="diverged: val/mpjpe_mm is nan at step 5"):
        training(a_run(tmp_path), write).next()
    assert noted_failure(tmp_path / "t0000")


def test_a_training_that_was_stopped_with_a_checkpoint_may_go_on(tmp_path):
    with pytest.raises(TrialFailed, match="stopped from outside"):
        training(a_run(tmp_path), lambda journal: journal.status("stopped")).next()
    assert not noted_failure(tmp_path / "t0000")


def test_the_reason_is_of_the_last_start(tmp_path):
    run = a_run(tmp_path)
    run.folder.mkdir()
    (run.folder / "train.log").write_text("MemoryError\n")

    def write(journal: Journal) -> None:
        with (run.folder / "train.log").open("a") as log:
            log.write("ValueError: something\n")

    with pytest.raises(TrialFailed, match=r"^ValueError: something$"):
        training(run, write, code=1).next()


def test_a_state_is_taken_over_only_once_the_earlier_start_has_let_go(tmp_path):
    donor, mine = a_run(tmp_path, "t0001"), a_run(tmp_path)
    checkpoint(donor, 15)
    checkpoint(mine, 5)
    one = training(mine, lambda journal: None)
    taking = threading.Thread(target=one.take_over, args=(donor.folder, 10))
    with held(mine.folder):
        taking.start()
        time.sleep(0.5)
        assert [path.name for path in (mine.folder / "checkpoints").iterdir()] == ["step-00000005"]
    taking.join(10)
    assert [path.name for path in (mine.folder / "checkpoints").iterdir()] == ["step-00000015"], "its newest"


def test_a_donor_may_remove_checkpoints_meanwhile(tmp_path, monkeypatch):
    donor, mine = a_run(tmp_path, "t0001"), a_run(tmp_path)
    checkpoint(donor, 10)
    from tune import handover

    copy = handover.shutil.copytree

    def prune_first(source: Path, to: Path) -> None:
        monkeypatch.setattr(handover.shutil, "copytree", copy)
        checkpoint(donor, 15)
        subprocess.run(["rm", "-r", source], check=True)
        copy(source, to)

    monkeypatch.setattr(handover.shutil, "copytree", prune_first)
    training(mine, lambda journal: None).take_over(donor.folder, 10)
    assert json.loads((mine.folder / "checkpoints" / "step-00000015" / "complete.json").read_text()) == {}


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
