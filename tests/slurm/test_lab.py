"""The lab is a Slurm that behaves like one: tasks on every node, ranks that find each other, GPUs handed out."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lab import Lab, LabError, sweep, wait_until

pytestmark = pytest.mark.slurm

ALL_REDUCE = """
import os, torch, torch.distributed as dist
rank, size = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
dist.init_process_group("gloo", init_method="tcp://n1:23456", rank=rank, world_size=size)
total = torch.tensor([10.0 ** rank])
dist.all_reduce(total)
print(f"{os.uname().nodename} rank {rank} sum {total.item():.0f}")
dist.destroy_process_group()
"""

PYTEST_TO_BE_KILLED = """
import sys, time
from lab import Lab
with Lab(nodes=1) as lab:
    print(lab.root, *(process.pid for process in [*lab._machines.values(), *lab._daemons.values()]), flush=True)
    time.sleep(60)
"""


def test_tasks_run_on_every_node(lab: Lab) -> None:
    names = lab.run(["srun", "--nodes=4", "hostname"]).stdout.split()
    assert sorted(names) == ["n1", "n2", "n3", "n4"]


def test_ranks_on_two_nodes_add_up(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "all_reduce.py").write_text(ALL_REDUCE)
    done = lab.run(["srun", "--nodelist=n1,n2", sys.executable, "all_reduce.py"], cwd=tmp_path, timeout=120)
    assert sorted(done.stdout.splitlines()) == ["n1 rank 0 sum 11", "n2 rank 1 sum 11"]


def test_gpus_are_handed_out(lab: Lab) -> None:
    done = lab.run(["srun", "--gpus-per-node=2", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"])
    assert done.stdout.strip() == "0,1"


def test_a_failing_job_fails_the_wait_with_its_output(lab: Lab, tmp_path: Path) -> None:
    job = lab.sbatch("--wrap", "echo it broke; exit 3", cwd=tmp_path)
    with pytest.raises(LabError, match=r"ended as FAILED .*exit 3:0(?s:.*)it broke"):
        lab.wait(job, "COMPLETED")


def test_no_packet_leaves_the_lab(lab: Lab) -> None:
    routes = {node: lab.run(["ip", "route"], node=node).stdout.split()[:1] for node in ("ctl", *lab.nodes)}
    assert routes == {node: ["10.77.0.0/24"] for node in routes}


def test_the_lab_dies_with_the_process_that_booted_it() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", PYTEST_TO_BE_KILLED],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    with owner, owner.stdout:
        root, *pids = owner.stdout.readline().split()
        assert len(pids) == 4
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 10, lambda: f"some of {pids} live on")
    sweep()
    assert not Path(root).exists()


@pytest.mark.drill
def test_a_job_moves_off_a_dead_node(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(
        textwrap.dedent("""\
        #!/bin/sh
        #SBATCH --nodes=2 --requeue --open-mode=append
        echo "start ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST"
        [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || exec srun sleep 300
        """)
    )
    with Lab(nodes=3) as lab:
        job = lab.sbatch(script, cwd=tmp_path)
        lab.wait(job, "RUNNING")
        wait_until(lambda: "start 0" in lab.output(job), 20, lambda: lab.log("slurmctld"))
        lab.kill("n2")
        wait_until(lambda: "start 1" in lab.output(job), 120, lambda: lab.log("slurmctld"), pause=0.5)
        assert lab.wait(job, "COMPLETED")["Restarts"] == "1"
        assert "start 0 on n[1-2]" in lab.output(job)
        assert "start 1 on n[1,3]" in lab.output(job)
        lab.start("n2")
        lab.wait_idle(3)
