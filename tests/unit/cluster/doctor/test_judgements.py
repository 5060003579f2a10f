"""What the doctor makes of what it sees on one node."""

import resource

import pytest

from cluster.doctor.libraries import Wish, driver_version, gpus, probe, versions
from cluster.doctor.machine import (
    check_machine,
    disk,
    existing,
    infiniband,
    infiniband_ports,
    locked_memory,
    open_files,
    shared_memory,
)
from cluster.doctor.meeting import clock

pytestmark = pytest.mark.unit

CPU_BUILD = {"torch": "2.13.0+cpu", "cuda": "", "nccl": "", "gpus": []}
CUDA_BUILD = {"torch": "2.13.0", "cuda": "13.0", "nccl": "2.28", "gpus": []}
TWO = CUDA_BUILD | {"gpus": ["H200, 140 GiB"] * 2}


@pytest.mark.parametrize(
    ("found", "wish", "status"),
    [
        (CPU_BUILD, Wish(), "ok"),
        (CPU_BUILD, Wish("cpu", given=0), "ok"),
        (CPU_BUILD, Wish("cuda"), "warn"),  # a login node
        (CPU_BUILD, Wish("cuda", given=0), "fail"),  # a job that asked for none
        (CPU_BUILD, Wish(given=2), "fail"),
        (TWO, Wish(given=2), "ok"),
        (TWO, Wish(given=4), "fail"),
        (TWO, Wish(given=4, tasks=2), "ok"),  # shared out among the tasks
        (TWO, Wish(), "ok"),
        ({"fault": "no torch"}, Wish(), "fail"),
    ],
)
def test_gpus(found, wish, status):
    assert gpus(found, wish, "580.1").status == status


def test_gpus_that_torch_does_not_see_are_explained():
    given = Wish(given=2)
    assert "built without CUDA" in gpus(CPU_BUILD, given, "580.1").advice
    assert "--nv" in gpus(CUDA_BUILD, given, "").advice
    assert "may be too old" in gpus(CUDA_BUILD, given, "470.1").advice
    assert gpus(TWO, given, "580.1").says == "2 x H200, 140 GiB"


@pytest.mark.parametrize(
    ("offset", "error", "status"), [(0.2, 0.0, "ok"), (-5, 0.1, "warn"), (5, 4.5, "ok"), (-100, 1, "fail")]
)
def test_a_clock_is_wrong_beyond_what_is_uncertain(offset, error, status):
    assert clock(float(offset), float(error)).status == status


def test_limits(tmp_path):
    assert [disk(tmp_path, free).status for free in (10**12, 5 * 10**9, 10**8)] == ["ok", "warn", "fail"]
    assert [shared_memory(size).status for size in (2**30, 64 * 2**20)] == ["ok", "warn"]
    assert [open_files(count).status for count in (resource.RLIM_INFINITY, 4096, 256)] == ["ok", "ok", "warn"]
    assert locked_memory(65536, has_infiniband=False).status == "ok"
    assert locked_memory(65536, has_infiniband=True).status == "fail"
    assert locked_memory(resource.RLIM_INFINITY, has_infiniband=True).status == "ok"


def test_infiniband_is_read_from_the_kernel(tmp_path):
    assert infiniband(infiniband_ports(tmp_path)).says == "none"
    for port, state in {"mlx5_0": "1: DOWN", "mlx5_1": "4: ACTIVE"}.items():
        folder = tmp_path / "sys/class/infiniband" / port / "ports/1"
        folder.mkdir(parents=True)
        (folder / "state").write_text(f"{state}\n")
        expected = "warn" if port == "mlx5_0" else "ok"
        assert infiniband(infiniband_ports(tmp_path)).status == expected
    assert infiniband_ports(tmp_path) == {"mlx5_0/1": "DOWN", "mlx5_1/1": "ACTIVE"}


def test_this_machine_has_every_finding(tmp_path):
    found = {finding.check: finding for finding in check_machine([tmp_path / "runs" / "new"])}
    assert {"CPU cores", "memory", "shared memory", f"disk, {tmp_path}", "open files", "InfiniBand"} <= set(found)
    assert existing(tmp_path / "runs" / "new") == tmp_path


def test_versions_out_of_range_are_named():
    assert versions(["numpy>=2", 'cupy>=1; extra == "cuda13"']).status == "ok"
    wrong = versions(["numpy<1", "no-such-package>=3"])
    assert wrong.status == "fail"
    assert wrong.says.endswith("no-such-package missing, wanted >=3")
    assert "numpy 2" in wrong.says


def test_a_driver_is_asked_for_without_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_version() == ""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 580.65.06\necho 580.65.06\n")
    tool.chmod(0o755)
    assert driver_version() == "580.65.06"


def test_a_library_that_hangs_or_is_missing_is_a_finding():
    assert probe("DALI", 0.01) == {"fault": "no answer within 0 s"}
    assert "KeyError" in probe("nothing", 60)["fault"]
