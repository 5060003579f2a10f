"""What Slurm's variables say of a job."""

import pytest

from cluster.allocation import Allocation, current_allocation
from poselib.errors import InputError

pytestmark = pytest.mark.unit

BATCH = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3", "SLURM_GPUS_ON_NODE": "8"}


def test_outside_of_slurm_there_is_none():
    assert current_allocation({}) is None


def test_a_batch_script_is_no_task():
    assert current_allocation(BATCH) == Allocation(7, 3, 8, in_task=False)


def test_a_step_is_a_task_but_for_the_shell_of_salloc():
    assert current_allocation(BATCH | {"SLURM_STEP_ID": "0"}).in_task
    assert not current_allocation(BATCH | {"SLURM_STEP_ID": "4294967290"}).in_task


def test_without_gpus_it_says_zero():
    assert current_allocation({"SLURM_JOB_ID": "7"}).gpus_on_node == 0


def test_nonsense_is_one_line():
    with pytest.raises(InputError, match="no numbers"):
        current_allocation(BATCH | {"SLURM_JOB_NUM_NODES": "many"})
