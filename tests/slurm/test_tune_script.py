"""slurm/tune.sh: the Ray that it starts, what it hands the search, and what it says when something is missing."""

import json
import sys
from pathlib import Path

import pytest

from lab import Lab, LabError, wait_until

pytestmark = pytest.mark.slurm

SCRIPT = Path(__file__).parents[2] / "slurm" / "tune.sh"
POSE = """
import json, os, signal, sys, time
from pathlib import Path
words, folder = sys.argv[1:], Path("search")
if words[0] == "site":
    sys.path.insert(0, ROOT)
    import pose; sys.exit(pose.main(words))
if words[:2] == ["tune", "folder"]:
    sys.exit("pose tune folder: unknown key 'bad'" if "--bad" in words else print(folder.resolve()))
names = ("RAY_ADDRESS", "LOADED", "NCCL_DEBUG", "RAY_memory_monitor_refresh_ms", "SLURM_RESTART_COUNT")
print(json.dumps({"argv": words} | {name: os.environ.get(name) for name in names}), flush=True)
if "--wait" in words and not os.environ.get("SLURM_RESTART_COUNT"):
    folder.mkdir()
    stopped = []
    signal.signal(signal.SIGUSR1, lambda *_: stopped.append(True))
    Path("waits").touch()
    while not stopped:
        time.sleep(0.05)
    (folder / "metrics.jsonl").write_text('{"kind": "status", "value": "stopped", "time": 1}\\n')
"""
RAY = """
import json, os, sys, time
from pathlib import Path
if sys.argv[1] == "start":
    Path(f"ray-{os.uname().nodename}").write_text(json.dumps(sys.argv[2:]))
    time.sleep(600)
heard = Path().glob("ray-n1" if Path("deaf").exists() else "ray-*")
print("".join(f" 1 node_{path.name}\\n" for path in heard))
"""
HOSTNAME = '#!/bin/bash\n[ "$1" != -I ] || { echo "$OTHERS"; exit; }\necho 127.0.1.1\n'
HOSTILE = ["--name", "two words", "$(touch gotcha)", "*", "a;touch gotcha", 'it\'s "quoted"', ""]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose `.venv/bin` has a `pose` that prints what it was given, and a `ray` that notes it."""
    folder = tmp_path / "my project"
    for name, text in (("pose", POSE.replace("ROOT", repr(str(SCRIPT.parents[1])))), ("ray", RAY)):
        put(folder / ".venv" / "bin" / name, f"#!{sys.executable}\n{text}")
    return folder


def put(path: Path, text: str) -> None:
    """A program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def searches(lab: Lab, job: int) -> list[dict]:
    """What each start of a job that has ended well gave `pose tune`."""
    lab.wait(job, "COMPLETED")
    return [json.loads(line) for line in lab.output(job).splitlines() if line.startswith("{")]


def with_stub(tmp_path: Path, name: str, text: str) -> str:
    """A PATH with a stand-in for a program."""
    put(tmp_path / "stubs" / name, text)
    return f"{tmp_path}/stubs:/usr/bin:/bin"


def test_ray_on_every_node_and_the_search_beside_its_head(lab: Lab, project: Path) -> None:
    job = lab.sbatch("--nodes=2", "--gpus-per-node=2", "--cpus-per-gpu=2", SCRIPT, *HOSTILE, cwd=project)
    [search] = searches(lab, job)
    assert search["argv"] == ["tune", *HOSTILE]
    assert not (project / "gotcha").exists()
    assert search["RAY_memory_monitor_refresh_ms"] == "0"
    address, port = search["RAY_ADDRESS"].split(":")
    started = sorted((json.loads(path.read_text()) for path in project.glob("ray-*")), key=len)
    assert len(started) == 2
    assert all({"--num-cpus=4", "--num-gpus=2", "--block"} <= set(words) for words in started)
    assert f"--address={address}:{port}" in started[0]
    assert {"--head", f"--node-ip-address={address}", f"--port={port}"} <= set(started[1])
    assert not address.startswith("127.")


def test_an_own_name_that_means_the_loopback_is_looked_through(lab: Lab, project: Path, tmp_path: Path) -> None:
    path = with_stub(tmp_path, "hostname", HOSTNAME)
    job = lab.sbatch(SCRIPT, cwd=project, env={"PATH": path, "OTHERS": "fd00::1 10.9.8.7 172.17.0.1"})
    assert searches(lab, job)[0]["RAY_ADDRESS"].startswith("10.9.8.7:")
    job = lab.sbatch(SCRIPT, cwd=project, env={"PATH": path, "OTHERS": "fd00::1"})
    with pytest.raises(LabError, match=r"tune\.sh: n\d has no address but its loopback's"):
        lab.wait(job, "COMPLETED")


def test_nodes_that_do_not_join_are_named(lab: Lab, project: Path) -> None:
    (project / "deaf").touch()
    quick = {"BASH_FUNC_sleep%%": "() { SECONDS=$((SECONDS + 20)); }"}
    job = lab.sbatch("--nodes=2", "--nodelist=n1,n2", SCRIPT, cwd=project, env=quick)
    assert len(searches(lab, job)) == 1
    assert "tune.sh: 1 of 2 nodes have joined Ray on " in lab.output(job)


def test_a_plain_job_that_is_asked_to_stop_goes_back_into_the_queue_and_on(lab: Lab, project: Path) -> None:
    job = lab.sbatch(SCRIPT, "--wait", cwd=project)
    wait_until((project / "waits").exists, 60, lambda: lab.output(job))
    lab.run(["scancel", "--batch", "--signal=USR1", str(job)])
    assert [search["SLURM_RESTART_COUNT"] for search in searches(lab, job)] == [None, "1"]
    assert f"it will go on with {project}/search" in lab.output(job)


def test_a_site_brings_modules_variables_and_its_environment(lab: Lab, project: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site.yaml", tmp_path / "elsewhere"
    (project / ".venv").rename(elsewhere)
    (project / ".venv").symlink_to(elsewhere)
    site.write_text(f"modules: [gcc/12.2]\nvariables: [NCCL_DEBUG=WARN]\nvenv: {elsewhere}\n")
    environment = {"POSE_SITE": str(site), "BASH_FUNC_module%%": "() { export LOADED=$2; }"}
    [search] = searches(lab, lab.sbatch(SCRIPT, cwd=project, env=environment))
    assert (search["LOADED"], search["NCCL_DEBUG"]) == ("gcc/12.2", "WARN")
    site.write_text(f"image: {tmp_path}/pose.sif\n")
    job = lab.sbatch(SCRIPT, cwd=project, env=environment)
    with pytest.raises(LabError, match=r"needs a venv: set venv in .*site\.yaml, not image"):
        lab.wait(job, "COMPLETED")


def test_settings_are_refused_before_ray_starts(lab: Lab, project: Path) -> None:
    job = lab.sbatch(SCRIPT, "--bad", "1", cwd=project)
    with pytest.raises(LabError, match="pose tune folder: unknown key 'bad'"):
        lab.wait(job, "COMPLETED")
    assert not list(project.glob("ray-*"))


def test_outside_slurm_it_says_how(lab: Lab) -> None:
    done = lab.run([SCRIPT], check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "tune.sh: this is a batch script: sbatch slurm/tune.sh --config FILE ...\n",
    )
