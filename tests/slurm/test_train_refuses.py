"""What a job cannot have is one clear line: a port, a folder to write into, a partition."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import drill
from lab import Lab, LabError

pytestmark = [pytest.mark.slurm, pytest.mark.drill]

FIRST_PORT = 20001
"""Of a lab's first job."""

LISTEN = f"""
import socket, time
server = socket.create_server(("", {FIRST_PORT}))
print("on", flush=True)
time.sleep(600)
"""


def test_a_port_that_is_taken_costs_one_start(shard_sets: dict[str, Path], tmp_path: Path) -> None:
    with Lab(nodes=2) as lab:
        listens = lab._enter("n1", [sys.executable, "-c", LISTEN])
        with subprocess.Popen(listens, stdout=subprocess.PIPE) as other:
            assert other.stdout.readline() == b"on\n"
            training = drill.start(lab, tmp_path / "job", shard_sets, "--epochs=1", "--validate-every=1")
            assert training.wait_end()["Restarts"] == "1"
            other.kill()
        said = training.output()
    assert re.search(rf"pose train: .*port {FIRST_PORT}.* taken.*; a new start takes another", said)
    assert re.search(rf"job 1 goes back into the queue, as its ranks .*port {FIRST_PORT}.* taken", said)


def test_a_folder_that_cannot_be_written_ends_the_job_before_its_ranks_start(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path
) -> None:
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    for node in lab.nodes:
        lab.run(["mount", "-t", "tmpfs", "-o", "ro", "none", sealed], node=node)
    try:
        training = drill.start(lab, tmp_path / "job", shard_sets, f"--runs_dir={sealed}")
        lab.wait(training.job, "FAILED")
    finally:
        for node in lab.nodes:
            lab.run(["umount", sealed], node=node)
    said = "cannot hold the code (Read-only file system); set runs_dir to a folder that can"
    assert f"pose job begin: {sealed}/drill {said}" in training.output()


def test_an_unknown_partition_is_refused(lab: Lab, shard_sets: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "drill.yaml").write_text(drill._CONFIG.format(**shard_sets))
    words = ("submit", "train", "--config", "drill.yaml", "--job.partition", "nowhere")
    with pytest.raises(LabError, match=r"pose submit train: Slurm refuses the job train-drill: .*nvalid partition"):
        drill.pose(lab, tmp_path, *words)
