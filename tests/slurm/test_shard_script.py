"""slurm/shard.sh: a shard set by a job array over the nodes, a lost task made anew, and what it says when it cannot."""

import re
import sys
from pathlib import Path

import pytest

from lab import Lab

pytestmark = pytest.mark.slurm

SCRIPT = Path(__file__).parents[2] / "slurm" / "shard.sh"
SAME = ("--stored_px", "96", "--every", "1", "--every_test", "2")
"""The settings of `shard_sets`."""


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def jobs_of(said: str) -> tuple[int, int]:
    """The array's id and that of the job that closes the set."""
    found = re.search(r"as job (\d+), and job (\d+) that closes", " ".join(said.split()))
    assert found, said
    return int(found[1]), int(found[2])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def test_a_job_that_submits_the_array(lab: Lab, studio: Path, shard_sets: dict[str, Path], project: Path) -> None:
    words = (studio / "h36m", "shards/h36m", *SAME, "--tasks", "3", "--job.cpus", "2")
    first = lab.sbatch(SCRIPT, *words, cwd=project)
    lab.wait(first, "COMPLETED", seconds=120)
    array, last = jobs_of(lab.output(first))
    lab.wait(last, "COMPLETED", seconds=240)
    assert content(project / "shards" / "h36m") == content(shard_sets["h36m"])
    logs = {path.name: path.read_text() for path in (project / "runs" / "jobs" / "h36m").glob("*_log.out")}
    assert {f"{array}_{task}_0_log.out" for task in range(3)} < logs.keys()
    assert len({host for log in logs.values() for host in re.findall(r"hostname=(n\d)", log)}) > 1
    assert "64 samples of h36m in 4 shards" in logs[f"{last}_0_log.out"]


def test_a_lost_task_is_named_and_made_by_the_same_command(
    lab: Lab, studio: Path, shard_sets: dict[str, Path], project: Path
) -> None:
    command = ["bash", SCRIPT, studio / "h36m", "shards/h36m", *SAME, "--tasks", "2", "--job.cpus", "1"]
    command += ["--job.at_once", "1", "--job.partition", "batch"]
    array, last = jobs_of(lab.run(command, cwd=project).stdout)
    lab.run(["scancel", f"{array}_1"])
    lab.wait(last, "FAILED", seconds=240)
    assert "2 of 4 parts are missing" in lab.output(last)
    assert "--share 2/2" in lab.output(last)
    assert not (project / "shards" / "h36m" / "manifest.json").exists()
    again = lab.run(command, cwd=project).stdout
    assert "submitted 1 tasks of 2 (the others are made)" in " ".join(again.split())
    lab.wait(jobs_of(again)[1], "COMPLETED", seconds=240)
    assert content(project / "shards" / "h36m") == content(shard_sets["h36m"])


def test_what_cannot_be_is_one_clear_line(lab: Lab, project: Path, tmp_path: Path) -> None:
    said = lab.run(["bash", SCRIPT, "raw"], cwd=project, check=False)
    assert (said.returncode, said.stderr.count("\n")) == (1, 1)
    assert "give the raw folder and that of the set" in said.stderr
    said = lab.run(["bash", SCRIPT, "nowhere", "out"], cwd=project, check=False)
    assert said.returncode == 1
    assert "nowhere is not a folder" in said.stderr
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    said = lab.run(["bash", SCRIPT, "raw", "out"], cwd=empty, env={"PATH": "/usr/bin:/bin"}, check=False)
    assert said.returncode == 1
    assert "no .venv/bin/pose in" in said.stderr


def test_a_refused_job_is_one_clear_line(lab: Lab, studio: Path, project: Path) -> None:
    command = ["bash", SCRIPT, studio / "h36m", "out", "--job.partition", "nowhere"]
    said = lab.run(command, cwd=project, check=False)
    assert said.returncode == 1
    assert re.search(r"Slurm refuses the job shards-out: .*partition", said.stderr), said.stderr
    assert "Traceback" not in said.stderr
