"""slurm/train.sh: the tasks it starts, what it hands them, and what it says when something is missing."""

import json
import sys
from pathlib import Path

import pytest

from lab import Lab, LabError

pytestmark = pytest.mark.slurm

SCRIPT = Path(__file__).parents[2] / "slurm" / "train.sh"
NAMES = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "MASTER_ADDR", "MASTER_PORT")
HOSTILE = ["--name", "two words", "$(touch gotcha)", "`touch gotcha`", "*", "a;touch gotcha", 'it\'s "quoted"', ""]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose `.venv/bin/pose` prints what it was given as a line of JSON."""
    pose = tmp_path / "my project" / ".venv" / "bin" / "pose"
    pose.parent.mkdir(parents=True)
    pose.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "if sys.argv[1] == 'requeue': sys.exit(print(json.dumps(sys.argv[1:])))\n"
        f"line = {{'argv': sys.argv[1:], **{{n: os.environ[n] for n in {NAMES}}}}}\n"
        "os.write(1, (json.dumps(line) + '\\n').encode())\n"
    )
    pose.chmod(0o755)
    return tmp_path / "my project"


def tasks(lab: Lab, job: int) -> list[dict[str, str]]:
    lab.wait(job, "COMPLETED")
    lines = [json.loads(line) for line in lab.output(job).splitlines()]
    found = [line for line in lines if isinstance(line, dict)]
    assert [line for line in lines if isinstance(line, list)] == [
        ["requeue", *found[0]["argv"][1:], "--exit_code", "0"]
    ]
    return sorted(found, key=lambda task: task["SLURM_PROCID"])


def test_one_task_per_node_with_a_common_address(lab: Lab, project: Path) -> None:
    job = lab.sbatch("--nodes=3", SCRIPT, "--config", "x.yaml", cwd=project)
    found = tasks(lab, job)
    first = lab.job(job)["NodeList"].replace("[", "")[:2]
    assert [task["SLURM_PROCID"] for task in found] == ["0", "1", "2"]
    assert {task["SLURM_NTASKS"] for task in found} == {"3"}
    assert {(task["MASTER_ADDR"], task["MASTER_PORT"]) for task in found} == {(first, str(20000 + job))}


def test_one_task_per_gpu(lab: Lab, project: Path) -> None:
    job = lab.sbatch("--nodes=2", "--gpus-per-node=2", "--cpus-per-gpu=3", SCRIPT, cwd=project)
    assert [task["SLURM_LOCALID"] for task in tasks(lab, job)] == ["0", "1", "0", "1"]


def test_tasks_per_node_as_asked(lab: Lab, project: Path) -> None:
    job = lab.sbatch("--nodes=2", "--ntasks-per-node=3", SCRIPT, cwd=project)
    assert len(tasks(lab, job)) == 6


def test_arguments_arrive_as_they_were_written(lab: Lab, project: Path) -> None:
    [task] = tasks(lab, lab.sbatch(SCRIPT, *HOSTILE, cwd=project))
    assert task["argv"] == ["train", *HOSTILE]
    assert not (project / "gotcha").exists()


def test_too_few_cores_are_one_clear_line(lab: Lab, project: Path) -> None:
    job = lab.sbatch("--gpus-per-node=2", SCRIPT, cwd=project)
    with pytest.raises(LabError, match="1 cores for 2 tasks on each node; add --cpus-per-gpu=8"):
        lab.wait(job, "COMPLETED")


def test_a_missing_installation_is_one_clear_line(lab: Lab, tmp_path: Path) -> None:
    job = lab.sbatch(SCRIPT, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})
    with pytest.raises(LabError, match=r"no \.venv/bin/pose in .* and no pose on PATH"):
        lab.wait(job, "COMPLETED")


def test_outside_slurm_it_says_how(lab: Lab) -> None:
    done = lab.run([SCRIPT], check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "train.sh: this is a batch script: sbatch slurm/train.sh --config FILE ...\n",
    )
