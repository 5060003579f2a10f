"""The world from each launcher's variables, and the job around it."""

import socket
from pathlib import Path

import pytest

from cluster.world import Allocation, Job, World, current_allocation, current_job, current_world, free_port, node_name
from poselib.errors import InputError

pytestmark = pytest.mark.unit

SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_TASKS_PER_NODE": "2(x4)",
    "SLURM_STEP_NODELIST": "n[1-4]",
    "MASTER_ADDR": "n1",
}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3", "SLURM_GPUS_ON_NODE": "8"}
INTERACTIVE = {"SLURM_STEP_ID": "4294967290"}


def test_without_a_launcher_there_is_none():
    assert current_world({}) is None


def test_a_batch_script_is_no_task():
    assert current_world({"SLURM_JOB_ID": "5", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}) is None


def test_the_shell_of_salloc_is_no_task():
    assert current_world(SLURM | {"SLURM_PROCID": "0"} | INTERACTIVE) is None


def test_slurm_tasks():
    world = current_world(SLURM)
    assert world == World(3, 8, 1, 2, "n1", 20000 + 3456, "slurm")
    assert world.variables()["WORLD_SIZE"] == "8"


def test_the_batch_scripts_port_wins():
    assert current_world(SLURM | {"MASTER_PORT": "4242"}).port == 4242


def test_torchrun_wins_inside_slurm():
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "99"}
    assert current_world(SLURM | torchrun) == World(1, 2, 1, 2, "h", 99, "torchrun")


def test_a_world_knows_itself_again():
    world = World(1, 4, 1, 4, "host", 1234, "torchrun")
    assert current_world(world.variables()) == world


@pytest.mark.parametrize("missing", ["SLURM_LOCALID", "SLURM_JOB_ID"])
def test_incomplete_variables_are_named(missing):
    with pytest.raises(InputError, match=missing):
        current_world({key: value for key, value in SLURM.items() if key != missing})


def test_a_task_of_an_array_is_a_job_of_its_own():
    assert current_job(SLURM | {"SLURM_RESTART_COUNT": "2"}) == Job("123456", 2)
    assert current_job(SLURM | {"SLURM_ARRAY_JOB_ID": "123456", "SLURM_ARRAY_TASK_ID": "3"}) == Job("123456_3", 0)
    assert current_job({}) == Job()


def test_outside_of_slurm_there_is_no_allocation():
    assert current_allocation({}) is None


def test_an_allocation_is_seen_from_a_batch_script_and_from_a_task():
    assert current_allocation(BATCH) == Allocation(7, 3, 8, in_task=False)
    assert current_allocation(BATCH | {"SLURM_STEP_ID": "0"}).in_task
    assert not current_allocation(BATCH | INTERACTIVE).in_task
    assert current_allocation({"SLURM_JOB_ID": "7"}).gpus_on_node == 0


def test_nonsense_is_one_line():
    with pytest.raises(InputError, match="no numbers"):
        current_allocation(BATCH | {"SLURM_JOB_NUM_NODES": "many"})


def test_a_free_port_is_free_and_no_outgoing_connection_takes_it():
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 10
    assert max(ports) < first_outgoing
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cluster.world._OWN_PORTS", range(taken.getsockname()[1], taken.getsockname()[1] + 1))
            with pytest.raises(InputError, match="is free"):
                free_port()


def test_a_node_goes_by_slurms_name():
    assert node_name({"SLURMD_NODENAME": "n1"}) == "n1"
    assert node_name({}) == socket.gethostname()
