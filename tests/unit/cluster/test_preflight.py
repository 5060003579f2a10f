"""A run that could not begin is refused before anything is queued: its folder, its settings, who trains it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

import pose
from cluster.preflight import check, check_free
from cluster.run_folder import claim, held
from cluster.settings import BatchSettings, OptimizerSettings, Run
from cluster.settings_data import DataSettings
from poselib.errors import InputError

pytestmark = pytest.mark.unit


@pytest.fixture
def run(shard_sets, tmp_path) -> Run:
    data = DataSettings(
        h36m=str(shard_sets["h36m"]), train_subjects=("S1",), val_subjects=("S1",), test_subjects=("S9",)
    )
    return Run(name="x", data=data, runs_dir=tmp_path / "runs", batch=BatchSettings(micro=2))


def test_a_run_that_can_begin_leaves_nothing_behind(run):
    check(run, 2)
    check_free(run)
    assert not run.runs_dir.exists()


def test_a_folder_that_could_not_be_made_is_named(run, tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match=r"runs/x cannot be written \(.*/runs is closed to it\); set runs_dir"):
        check(run, 2)


def test_a_folder_that_is_closed_to_this_user_is_named(run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK)
    with pytest.raises(InputError, match="cannot be written"):
        check(run, 2)


def test_a_folder_of_another_run_is_refused_with_what_differs(run):
    claim(run, 4)
    check(run, 2)
    with pytest.raises(InputError, match=r"holds a run with other settings \(optimizer.lr 0.0001 -> 0.5\)"):
        check(replace(run, optimizer=OptimizerSettings(lr=0.5)), 2)


def test_a_run_in_training_is_not_submitted_but_behind_that_job(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    run.folder.mkdir(parents=True)
    words = ["submit", "train", "--name=x", f"--runs_dir={run.runs_dir}", f"--data.h36m={run.data.h36m}"]
    words += ["--data.train_subjects=[S1]", "--data.val_subjects=[S1]", "--data.test_subjects=[S9]", "--batch.micro=2"]
    words += [f"--job.folder={tmp_path / 'jobs'}"]
    with held(run.folder):
        assert pose.main(words) == 1
        assert "runs/x is being trained now; wait for it, stop it" in capsys.readouterr().err
        assert pose.main([*words, "--job.more={dependency: afterany:7}"]) == 1
        assert "there is no sbatch on this machine" in capsys.readouterr().err
    assert Path(run.folder / ".lock").exists()
