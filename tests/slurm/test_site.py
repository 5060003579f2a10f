"""`sbatch $(pose site ...)`: real Slurm takes the options, and the job runs the copy of the code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab import Lab

pytestmark = pytest.mark.slurm

PROJECT = Path(__file__).parents[2]
PROFILE = "partition: urgent\ntime: '10:00'\ngpus_per_node: 2\ncpus_per_gpu: 2\nnetwork_interface: eth0\n"
TELL = """#!/bin/bash
srun --ntasks=1 %s -c 'import cluster, json, os
print(json.dumps([cluster.__file__, os.environ["POSE_SITE"], os.environ["MASTER_ADDR"]]))'
"""


def pose_site(*words: str) -> list[str]:
    command = [sys.executable, "-m", "pose", "site", *words]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()


def test_options_and_code_reach_the_tasks(lab: Lab, tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(PROFILE)
    options = pose_site(str(profile), "--nodes", "2", "--snapshot", str(tmp_path / "runs" / "x"))
    script = tmp_path / "tell.sh"
    script.write_text(TELL % sys.executable)
    # What the submitting shell and the batch script set reaches the tasks too.
    job = lab.sbatch(*options, script, cwd=tmp_path, env={"MASTER_ADDR": "n1"})
    asked = lab.job(job)
    lab.wait(job, "COMPLETED")
    [code] = (tmp_path / "runs" / "x" / "code").iterdir()
    assert json.loads(lab.output(job).splitlines()[-1]) == [str(code / "cluster/__init__.py"), str(profile), "n1"]
    assert (asked["Partition"], asked["NumNodes"][0], asked["TimeLimit"]) == ("urgent", "2", "00:10:00")
    assert asked["TresPerNode"] == "gres:gpu:2"


def test_a_site_that_counts_tasks(lab: Lab, tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(PROFILE + "gpu_option: gres\n")
    job = lab.sbatch(*pose_site(str(profile)), "--wrap", "srun hostname", cwd=tmp_path)
    lab.wait(job, "COMPLETED")
    assert lab.output(job).split() == ["n1", "n1"]
