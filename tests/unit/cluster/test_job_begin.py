"""What a batch script keeps of its job at the first start: a record, the settings, the way to the copy of the code."""

from pathlib import Path

import pytest

import pose
from cluster.config import load
from cluster.job_records import read_records
from cluster.settings import Run

pytestmark = pytest.mark.unit

WORDS = ["job", "begin", "--name=x", "--data.h36m=set", "--optimizer.lr=3e-4"]


@pytest.fixture
def job(tmp_path, monkeypatch) -> Path:
    """The folder of a job; what it keeps lies in `runs/jobs`."""
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "15")
    return tmp_path / "runs" / "jobs"


def test_settings_and_code_are_kept_for_later_starts(job, tmp_path):
    assert pose.main(WORDS) == 0
    lines = dict(line.split(" ", 1)[::-1] for line in (job / "15.start").read_text().splitlines())
    [code] = (tmp_path / "runs" / "x" / "code").iterdir()
    assert [line.split(":")[0] for line in lines] == [
        *(f"PYTHONPATH={code}", "PYTHONSAFEPATH=1"),
        *("--config", str(job / "15.yaml")),
    ]
    assert list(lines.values()) == ["set", "set", "word", "word"]
    assert load(Run, job / "15.yaml").optimizer.lr == 3e-4


def test_the_job_is_listed_with_its_run_and_the_log_of_all_ranks(job, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert pose.main(WORDS) == 0
    [record] = read_records(job)
    assert (record.id, record.label, record.executor, record.labelled) == ("12_3", "x", "slurm", True)
    assert record.run == str(tmp_path / "runs" / "x")
    assert len(record.logs) == 1
    assert (job / "15.start").read_text().endswith(f"word {job / '12_3.yaml'}\n"), (
        "the script knows Slurm's number alone"
    )


def test_outside_slurm_it_is_one_clear_line(job, monkeypatch, capsys):
    monkeypatch.delenv("SLURM_JOB_ID")
    assert pose.main(WORDS) == 1
    assert "pose job begin: this is for batch scripts" in capsys.readouterr().err
    assert not job.exists()
