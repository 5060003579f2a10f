"""Functions as jobs: what Slurm is asked for, and tasks as processes of this machine."""

from pathlib import Path

import pytest

import pose
from cluster.settings_submit import JobSettings, SubmitShardsSettings
from cluster.submit import batch_script, submit, wait_for
from poselib.errors import InputError

pytestmark = pytest.mark.unit


def content(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def leave(path: Path) -> None:
    """A task."""
    if path.parent.name == "nowhere":
        raise InputError("no such place")
    path.write_text("was here")


def test_the_script_asks_for_what_the_settings_say(tmp_path):
    job = JobSettings(
        partition="cpu", account="lab7", minutes=90, cpus=4, memory_gb=2.5, setup=("module load x",),
        more={"constraint": "ice lake"}, folder=tmp_path,
    )  # fmt: skip
    lines = batch_script(12, "name", job).splitlines()
    for line in (
        "#SBATCH --array=0-11%12", "#SBATCH --partition=cpu", "#SBATCH --account=lab7", "#SBATCH --time=90",
        "#SBATCH --cpus-per-task=4", "#SBATCH --mem=2560M", "#SBATCH --requeue", "#SBATCH --constraint='ice lake'",
        "#SBATCH --job-name=name", "module load x",
    ):  # fmt: skip
        assert line in lines
    assert [line for line in lines if line.startswith("srun") and "--cpus-per-task=4" in line]
    assert not [line for line in batch_script(1, "name", job).splitlines() if "--array" in line]
    assert not [line for line in batch_script(1, "name", JobSettings()).splitlines() if "--partition" in line]


def test_tasks_run_without_slurm_and_failures_are_said(tmp_path):
    job = JobSettings(executor="local", folder=tmp_path / "jobs")
    paths = [tmp_path / "a", tmp_path / "nowhere" / "b"]
    [failure] = wait_for(submit(leave, paths, "leave", job))
    assert paths[0].read_text() == "was here"
    assert failure == "poselib.errors.InputError: no such place"


def test_without_sbatch_it_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no sbatch on this machine; take a login node, or local"):
        submit(leave, [tmp_path / "a"], "leave", JobSettings(folder=tmp_path))


def test_a_set_built_by_local_tasks_is_the_same(studio, shard_sets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["submit", "shards", str(studio / "mpii"), "set", "--stored_px", "96", "--every", "1", "--every_test", "2"]
    local = ["--tasks", "2", "--job.executor", "local", "--job.cpus", "1"]
    assert pose.main([*words, "--dry_run", "true"]) == 0
    assert "#SBATCH --array=0-15" in capsys.readouterr().out
    assert pose.main(["submit", "shards", "nowhere", "set", "--dry_run", "true"]) == 1
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert pose.main([*words, *local]) == 0
    assert content(tmp_path / "set") == content(shard_sets["mpii"])
    assert "next: pose shards verify" in capsys.readouterr().out
    assert pose.main([*words, *local]) == 0  # finished: submits nothing
    assert "next: pose shards verify" in capsys.readouterr().out


def test_settings_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="share cannot be set here"):
        SubmitShardsSettings(raw=tmp_path, out=tmp_path, share="1/2")
    with pytest.raises(ValueError, match="tasks must be at least 1"):
        SubmitShardsSettings(raw=tmp_path, out=tmp_path, tasks=0)
    with pytest.raises(ValueError, match="cpus must be at least 1"):
        JobSettings(cpus=0)


def test_a_task_builds_from_absolute_folders_and_starts_a_process_per_core(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = SubmitShardsSettings(raw=Path("raw"), out=Path("out"), quality=80, job=JobSettings(cpus=5))
    built = settings.build_settings()
    assert (built.raw, built.out) == (tmp_path / "raw", tmp_path / "out")
    assert (built.workers, built.quality) == (5, 80)
