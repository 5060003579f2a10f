"""`pose doctor` over the nodes of an allocation: what it compares, and what it finds on a sick node."""

import re
import sys
from pathlib import Path

import pytest

from lab import Lab, LabError

pytestmark = pytest.mark.slurm

PROJECT = Path(__file__).parents[2]
DOCTOR = [sys.executable, "-m", "pose", "doctor", "--timeout_s=120"]
ENVIRONMENT = {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


def row(output: str, check: str) -> list[str]:
    """The words of a check's first line in the table: status, nodes, what was found."""
    lines = [line.strip() for line in output.splitlines() if line.strip().startswith(f"{check} ")]
    assert lines, output
    return lines[0].removeprefix(check).split(maxsplit=1)


def test_a_batch_script_has_every_node_checked(lab: Lab, tmp_path: Path) -> None:
    job = lab.sbatch("--nodes=2", "--wrap", " ".join(DOCTOR), cwd=tmp_path, env=ENVIRONMENT)
    lab.wait(job, "COMPLETED", seconds=200)
    output = lab.output(job)
    for check in ("rendezvous", "host names", "clock", "DALI", "DeepSpeed", "same packages", "same code"):
        status, rest = row(output, check)
        assert (status, rest.split()[:2]) == ("ok", ["all", "2"]), output
    assert f"2 of 2 ranks met at n1:{20000 + job}" in output
    assert row(output, "shared folder runs")[0] == row(output, "file locks runs")[0] == "ok"
    assert row(output, "all-reduce, gloo")[1].startswith("all 2   8 MiB over 2 nodes in")
    assert "checks on 2 nodes: all well" in output
    assert list(tmp_path.glob(".doctor-*")) == [], "it left files in the shared folder"


@pytest.mark.drill
def test_a_sick_node_is_named_with_advice(lab: Lab, tmp_path: Path) -> None:
    own = tmp_path / "scratch"
    own.mkdir()
    lab.run(["mount", "-t", "tmpfs", "none", own], node="n2")
    try:
        words = ["srun", "--ntasks-per-node=2", *DOCTOR, f"--shared=[{own}]"]
        script = ["--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2"]
        job = lab.sbatch(*script, "--wrap", " ".join(words), cwd=tmp_path, env=ENVIRONMENT)
        with pytest.raises(LabError, match=r"FAILED .*exit 1"):
            lab.wait(job, "COMPLETED", seconds=200)
    finally:
        lab.run(["umount", own], node="n2")
    output = lab.output(job)
    assert "4 of 4 ranks met" in output
    assert "fail  GPUs on all 2: Slurm gave 2, torch sees 0; " in output
    assert f"fail  shared folder {own} on n2: does not see what n1 writes into {own}; take a folder" in output
    assert re.search(r"failed \(.*GPUs.*shared folder", output), output


@pytest.mark.drill
def test_a_port_that_is_taken_is_one_line(lab: Lab, tmp_path: Path) -> None:
    words = ["srun", *DOCTOR, "--timeout_s=3"]
    environment = ENVIRONMENT | {"MASTER_PORT": "6818"}  # slurmd's own
    job = lab.sbatch("--nodes=2", "--wrap", " ".join(words), cwd=tmp_path, env=environment)
    with pytest.raises(LabError, match="exit 1"):
        lab.wait(job, "COMPLETED", seconds=200)
    assert "rendezvous port n1:6818 is taken by another process; set MASTER_PORT to a free one" in lab.output(job)
