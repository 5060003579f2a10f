"""Site profiles: what becomes of them, and what they refuse."""

from dataclasses import replace
from pathlib import Path

import pytest

import configs
import pose
from cluster.config import load
from cluster.site import Site, export_option, sbatch_options, setup_lines, task_command, task_environment, task_lines
from poselib.errors import InputError

pytestmark = pytest.mark.unit

PROFILES = sorted((Path(configs.__file__).parent / "site").glob("*.yaml"))
FULL = Site(
    partition="gpu,big",
    account="proj-1",
    time="2-00:00:00",
    memory="0",
    gpus_per_node=8,
    gpu_type="a100",
    cpus_per_gpu=8,
    exclusive=True,
    modules=("gcc/12.2.0", "cuda/13.0"),
    network_interface="ib0",
    variables=("NCCL_DEBUG=WARN",),
)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_packaged_profiles_are_valid(path):
    assert load(Site, path) == load(Site, Path(f"site/{path.name}"))


def test_every_key_of_the_example_is_valid_once_its_comment_sign_is_gone(tmp_path):
    lines = (Path(configs.__file__).parent / "site" / "example.yaml").read_text().splitlines()
    keys = [line.removeprefix("# ") for line in lines if ": " in line or line.startswith("venv")]
    keys = [line for line in keys if line.split(":")[0].isidentifier() and not line.startswith("venv")]
    file = tmp_path / "all.yaml"
    file.write_text("\n".join(keys))
    site = load(Site, file)
    assert site != load(Site, Path("site/example.yaml"))
    assert site.image is not None


def test_options_of_sbatch():
    assert sbatch_options(Site(), 1) == ["--nodes=1"]
    assert sbatch_options(FULL, 4) == [
        "--nodes=4",
        "--partition=gpu,big",
        "--account=proj-1",
        "--time=2-00:00:00",
        "--mem=0",
        "--gpus-per-node=a100:8",
        "--cpus-per-gpu=8",
        "--exclusive",
    ]


def test_sites_that_count_tasks():
    options = sbatch_options(replace(FULL, gpu_option="gres"), 1)
    assert {"--gres=gpu:a100:8", "--ntasks-per-node=8", "--cpus-per-task=8"} <= set(options)
    assert sbatch_options(Site(cpus_per_gpu=4), 2) == ["--nodes=2", "--cpus-per-task=4"]


def test_what_a_task_needs():
    assert task_environment(FULL) == {
        "NCCL_SOCKET_IFNAME": "ib0",
        "GLOO_SOCKET_IFNAME": "ib0",
        "NCCL_DEBUG": "WARN",
    }
    assert task_environment(Site(network_interface="^docker0")) == {"NCCL_SOCKET_IFNAME": "^docker0"}
    assert setup_lines(FULL)[:2] == ["module load gcc/12.2.0", "module load cuda/13.0"]
    assert task_command(Site()) == []
    assert task_command(Site(venv=Path("/opt/venv"))) == ["/opt/venv/bin/pose"]
    image = replace(FULL, image=Path("/opt/pose.sif"), binds=(Path("/scratch"),))
    assert task_command(image) == ["apptainer", "exec", "--nv", "--bind", "/scratch", "/opt/pose.sif", "pose"]
    assert task_lines(image)[:3] == ["module gcc/12.2.0", "module cuda/13.0", "set NCCL_SOCKET_IFNAME=ib0"]
    assert task_lines(image)[-1] == "word pose"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("partition", "gpu; rm"),
        ("partition", "--wrap=id"),
        ("account", "a b"),
        ("time", "$(id)"),
        ("memory", "all"),
        ("gpu_type", "a100 --exclusive"),
        ("modules", ("cuda/13.0; id",)),
        ("modules", ("-x",)),
        ("modules", ("",)),
        ("network_interface", "ib0`id`"),
        ("variables", ("LD_PRELOAD=/tmp/x.so",)),
        ("variables", ("NCCL_DEBUG=$(id)",)),
        ("variables", ("NCCL_DEBUG=a\nexport X=1",)),
        ("venv", Path("/opt/my venv")),
        ("image", Path("/opt/$HOME.sif")),
        ("binds", (Path("/a:/b"),)),
        ("gpus_per_node", -1),
    ],
)
def test_what_a_shell_would_act_on_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} "):
        Site(**{"gpus_per_node": 1, name: value})


def test_venv_and_image_exclude_each_other():
    with pytest.raises(ValueError, match="image and venv exclude each other"):
        Site(venv=Path("/v"), image=Path("/i"))


def test_paths_that_sbatch_would_take_apart_are_refused():
    assert export_option({"A": "/x/y", "B": "1"}) == "--export=ALL,A=/x/y,B=1"
    for path in ("/a,b", "/a b", "/a$(id)", "/a*"):
        with pytest.raises(InputError, match="cannot pass through sbatch"):
            export_option({"A": path})


def test_the_command_prints_one_line_for_sbatch_and_lines_for_a_task(tmp_path, capsys):
    profile = tmp_path / "mine.yaml"
    profile.write_text("gpus_per_node: 2\nvenv: /opt/venv\nmodules: [python/3.11]\n")
    assert pose.main(["site", str(profile), "--nodes", "2", "--snapshot", str(tmp_path / "run")]) == 0
    [code] = (tmp_path / "run" / "code").iterdir()
    expected = f"--export=ALL,POSE_SITE={profile},PYTHONPATH={code},PYTHONSAFEPATH=1"
    assert capsys.readouterr().out == f"--nodes=2 --gpus-per-node=2 {expected}\n"
    assert pose.main(["site", str(profile), "--show", "task"]) == 0
    assert capsys.readouterr().out.splitlines() == ["module python/3.11", "word /opt/venv/bin/pose"]


def test_a_profile_that_is_not_there_is_one_line(capsys):
    assert pose.main(["site", "nowhere"]) == 1
    assert "or one of example, local" in capsys.readouterr().err
