"""The batch script of a training: what it asks for, what stands around its ranks, and what a site profile adds."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.layout import as_training, lay_out
from cluster.settings_submit import RunJobSettings
from cluster.site import Site
from cluster.submit import batch_script
from poselib.errors import InputError

pytestmark = pytest.mark.unit

SITE = Site(
    partition="gpu", account="lab7", time="2-12:00:00", memory="0", gpus_per_node=8, gpu_type="a100", cpus_per_gpu=12,
    exclusive=True, modules=("python/3.11",), venv=Path("/shared/venv"), network_interface="ib0",
)  # fmt: skip


def script(job: RunJobSettings, site: Site = SITE, tasks: int = 1) -> list[str]:
    layout = as_training(lay_out(job, site, {"PYTHONPATH": "/the code"}), job.grace_s, Path("/jobs/x/spec"))
    return batch_script(tasks, "train-x", replace(job, folder=Path("/jobs/x")), layout).splitlines()


def words_of(lines: list[str], name: str) -> list[str]:
    [line] = [line for line in lines if line.startswith(name)]
    return line.split()


def test_the_profile_speaks_where_the_user_is_silent():
    lines = script(RunJobSettings(nodes=4))
    for option in (
        "nodes=4", "ntasks-per-node=8", "cpus-per-task=12", "gpus-per-node=a100:8", "partition=gpu", "account=lab7",
        "time=3600", "mem=0", "exclusive", "requeue", "open-mode=append", "signal=USR1@120", "job-name=train-x",
    ):  # fmt: skip
        assert f"#SBATCH --{option}" in lines
    assert not [line for line in lines if "cpus-per-gpu" in line or "--array" in line]
    srun = words_of(lines, "srun")
    assert {"--ntasks=32", "--ntasks-per-node=8", "--cpus-per-task=12", "--kill-on-bad-exit=1", "--wait=60"} < set(srun)
    assert "/shared/venv/bin/python" in srun
    before, after = lines.index("export SUBMITIT_EXECUTOR=slurm"), lines.index("code=$?")
    for line in ("module load python/3.11 || exit 1", "export NCCL_SOCKET_IFNAME=ib0", "export PYTHONPATH='/the code'"):
        assert lines.index(line) < before
    assert before < after
    assert lines[-1] == (
        'exec /shared/venv/bin/python -m pose requeue --config /jobs/x/spec/"${SLURM_ARRAY_TASK_ID:-0}".yaml'
        ' --exit_code "$code"'
    )


def test_the_users_words_win():
    job = RunJobSettings(
        nodes=2, gpus=2, partition="short", minutes=90, cpus=4, memory_gb=2.5, ranks=3, setup=("ulimit -n 4096",),
        more={"constraint": "ice", "signal": "USR1@300"},
    )  # fmt: skip
    lines = script(job, tasks=3)
    for option in (
        "gpus-per-node=a100:2", "partition=short", "time=90", "cpus-per-task=4", "mem=2560M", "ntasks-per-node=3",
        "constraint=ice", "signal=USR1@300", "array=0-2%3",
    ):  # fmt: skip
        assert f"#SBATCH --{option}" in lines
    assert "ulimit -n 4096" in lines


def test_no_gpus_is_one_rank_per_node():
    lines = script(RunJobSettings(nodes=2, gpus=0))
    assert not [line for line in lines if "gpu" in line and "partition" not in line]
    assert "#SBATCH --ntasks-per-node=1" in lines
    assert "#SBATCH --time=1440" in script(RunJobSettings(), Site())


def test_an_image_trains_inside_and_is_requeued_from_outside():
    site = replace(SITE, venv=None, image=Path("/shared/pose.sif"), binds=(Path("/data"),))
    lines = script(RunJobSettings(), site)
    assert " apptainer exec --nv --bind /data /shared/pose.sif python -u -m submitit.core._submit" in " ".join(
        words_of(lines, "srun")
    )
    assert "apptainer" not in lines[-1]


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("90", 90), ("90:30", 91), ("1:30:00", 90), ("2-0", 2880), ("1-6:30", 1830), ("0-0:00:01", 1)],
)
def test_slurms_ways_to_write_a_time(time, minutes):
    assert lay_out(RunJobSettings(), Site(time=time), {}).minutes == minutes


def test_what_a_script_cannot_take_is_refused():
    with pytest.raises(InputError, match=r"job\.partition cannot be 'a b'"):
        lay_out(RunJobSettings(partition="a b"), Site(), {})
    with pytest.raises(ValueError, match="nodes must be 1 for the local executor"):
        RunJobSettings(executor="local", nodes=2)


@pytest.mark.parametrize(("code", "asked"), [(0, True), (1, False), (2, False), (76, False), (75, True), (137, True)])
def test_the_script_asks_whether_to_requeue(tmp_path, code, asked):
    """The lines behind srun, run by bash: `pose requeue` hears of every ending but those that would come again."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    layout = replace(lay_out(RunJobSettings(), Site(), {}), python=str(python))
    lines = as_training(layout, 120, tmp_path / "the specs").after
    script = "\n".join(["trap : TERM", f"(kill -TERM $$; exit {code})", "", "# teardown", *lines])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={"SLURM_ARRAY_TASK_ID": "2"})
    expected = f"-m pose requeue --config {tmp_path}/the specs/2.yaml --exit_code {code}\n"
    assert (done.stdout, done.returncode) == ((expected, 0) if asked else ("", code))
