"""slurm/train.sh: the tasks it starts, what it hands them, and what it says when something is missing."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab import Lab, LabError

pytestmark = pytest.mark.slurm

SCRIPT = Path(__file__).parents[2] / "slurm" / "train.sh"
NAMES = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "MASTER_ADDR", "LOADED", "NCCL_DEBUG")
NAMES += ("PYTHONSAFEPATH", "CUDA_VISIBLE_DEVICES")
KEPT = ["--config", "/kept/1 2.yaml"]
START = f"set PYTHONSAFEPATH=1\nword {KEPT[0]}\nword {KEPT[1]}\n"
HOSTILE = ["--name", "two words", "$(touch gotcha)", "`touch gotcha`", "*", "a;touch gotcha", 'it\'s "quoted"', ""]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose `.venv/bin/pose` prints what it was given as a line of JSON; `train` is told to say `KEPT`."""
    pose = tmp_path / "my project" / ".venv" / "bin" / "pose"
    pose.parent.mkdir(parents=True)
    pose.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "if sys.argv[1] == 'requeue': sys.exit(print(json.dumps([os.environ.get('LOADED'), *sys.argv[1:]])))\n"
        "if sys.argv[1] == 'job':\n"
        "    os.makedirs('runs/jobs', exist_ok=True)\n"
        "    with open(f'runs/jobs/{os.environ[\"SLURM_JOB_ID\"]}.start', 'w') as start:\n"
        f"        start.write({START!r})\n"
        "    sys.exit(print(json.dumps(' '.join(map(repr, sys.argv[1:])))))\n"
        "if sys.argv[1] == 'site':\n"
        f"    sys.path.insert(0, {str(SCRIPT.parents[1])!r})\n"
        "    import pose; sys.exit(pose.main(sys.argv[1:]))\n"
        f"line = {{'argv': sys.argv[1:], **{{n: os.environ.get(n) for n in {NAMES}}}}}\n"
        "os.write(1, (json.dumps(line) + '\\n').encode())\n"
    )
    pose.chmod(0o755)
    return tmp_path / "my project"


def said(lab: Lab, job: int) -> list[object]:
    """The JSON lines of a job that has ended well; those of a task have its rank in front."""
    lab.wait(job, "COMPLETED")
    return [json.loads(re.sub(r"^ *\d+: ", "", line)) for line in lab.output(job).splitlines()]


def tasks(lab: Lab, job: int, outside: str | None = None, given: Sequence[str] = ("--config", "x.yaml")) -> list[dict]:
    """What each task was given, in the order of ranks; `outside` is LOADED where `pose requeue` runs."""
    lines = said(lab, job)
    found = [line for line in lines if isinstance(line, dict)]
    assert [line for line in lines if isinstance(line, str)] == [" ".join(map(repr, ["job", "begin", *given]))]
    assert [line for line in lines if isinstance(line, list)] == [[outside, "requeue", *KEPT, "--exit_code", "0"]]
    assert {tuple(task["argv"]) for task in found} == {("train", *KEPT)}
    assert {task["PYTHONSAFEPATH"] for task in found} == {"1"}
    return sorted(found, key=lambda task: int(task["SLURM_PROCID"]))


def test_one_task_per_node_with_a_common_address(lab: Lab, project: Path) -> None:
    job = lab.sbatch("--nodes=3", SCRIPT, "--config", "x.yaml", cwd=project)
    found = tasks(lab, job)
    first = lab.job(job)["NodeList"].replace("[", "")[:2]
    assert [task["SLURM_PROCID"] for task in found] == ["0", "1", "2"]
    assert {task["SLURM_NTASKS"] for task in found} == {"3"}
    assert {task["MASTER_ADDR"] for task in found} == {first}


def test_one_task_per_gpu(lab: Lab, project: Path) -> None:
    job = lab.sbatch("--nodes=2", "--gpus-per-node=2", "--cpus-per-gpu=3", SCRIPT, "--config", "x.yaml", cwd=project)
    found = tasks(lab, job)
    assert [task["SLURM_LOCALID"] for task in found] == ["0", "1", "0", "1"]
    assert [task["CUDA_VISIBLE_DEVICES"] for task in found] == ["0,1"] * 4


def test_gpus_bound_to_their_tasks(lab: Lab, project: Path) -> None:
    options = ["--nodes=2", "--ntasks-per-node=2", "--gpus-per-task=1", "--cpus-per-task=1"]
    found = tasks(lab, lab.sbatch(*options, SCRIPT, "--config", "x.yaml", cwd=project))
    assert [task["CUDA_VISIBLE_DEVICES"] for task in found] == ["0", "1", "0", "1"]


def test_tasks_per_node_as_asked(lab: Lab, project: Path) -> None:
    job = lab.sbatch("--nodes=2", "--ntasks-per-node=3", SCRIPT, "--config", "x.yaml", cwd=project)
    assert len(tasks(lab, job)) == 6


def test_arguments_arrive_as_they_were_written(lab: Lab, project: Path) -> None:
    assert len(tasks(lab, lab.sbatch(SCRIPT, *HOSTILE, cwd=project), given=HOSTILE)) == 1
    assert not (project / "gotcha").exists()


def test_a_start_that_cannot_begin_ends_the_job(lab: Lab, project: Path) -> None:
    (project / "runs").touch()
    job = lab.sbatch(SCRIPT, cwd=project)
    with pytest.raises(LabError, match="FAILED"):
        lab.wait(job, "COMPLETED")
    assert "NotADirectoryError" in lab.output(job)
    assert '"train"' not in lab.output(job)


def test_too_few_cores_are_one_clear_line(lab: Lab, project: Path) -> None:
    job = lab.sbatch("--gpus-per-node=2", SCRIPT, cwd=project)
    with pytest.raises(LabError, match="1 cores for 2 tasks on each node; add --cpus-per-gpu=8"):
        lab.wait(job, "COMPLETED")


def test_a_missing_installation_is_one_clear_line(lab: Lab, tmp_path: Path) -> None:
    job = lab.sbatch(SCRIPT, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})
    with pytest.raises(LabError, match=r"no \.venv/bin/pose in .* and no pose on PATH"):
        lab.wait(job, "COMPLETED")


class TestSiteProfile:
    """What `sbatch $(pose site ...)` has the script do on the node."""

    @pytest.fixture
    def profile(self, project: Path, tmp_path: Path) -> Path:
        path = tmp_path / "site.yaml"
        path.write_text("modules: [gcc/12.2, cuda]\nvariables: [NCCL_DEBUG=WARN]\n")
        return path

    def environment(self, profile: Path, module: str, **more: str) -> dict[str, str]:
        return {"POSE_SITE": str(profile), "BASH_FUNC_module%%": f"() {{ {module}; }}", **more}

    def test_modules_variables_and_tasks(self, lab: Lab, project: Path, profile: Path) -> None:
        module = '[ "$1" = load ] && export LOADED="${LOADED:-}<$2>" && : $unset'
        loaded = "<gcc/12.2><cuda>"
        job = lab.sbatch(SCRIPT, *HOSTILE, cwd=project, env=self.environment(profile, module))
        [task] = tasks(lab, job, loaded, HOSTILE)
        assert (task["LOADED"], task["NCCL_DEBUG"]) == (loaded, "WARN")

    @pytest.fixture
    def image(self, project: Path, profile: Path, tmp_path: Path) -> dict[str, str]:
        """A profile with an image, whose `pose` is the project's; the environment of its jobs."""
        stub = tmp_path / "bin" / "apptainer"
        stub.parent.mkdir()
        stub.write_text(
            f'#!/bin/bash\nwhile [ "$1" != pose ]; do shift; done\nshift\n'
            f'export LOADED=image\nexec "{project}/.venv/bin/pose" "$@"\n'
        )
        stub.chmod(0o755)
        profile.write_text(f"image: {tmp_path}/pose.sif\nbinds: [/srv]\ngpus_per_node: 1\n")
        more = {"POSE_IMAGE": f"{tmp_path}/pose.sif", "PATH": f"{stub.parent}:/usr/bin:/bin"}
        return self.environment(profile, "true", **more)

    def test_the_words_of_an_image_need_no_pose_on_the_host(
        self, lab: Lab, image: dict[str, str], tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        job = lab.sbatch(SCRIPT, "--name", "x", cwd=elsewhere, env=image)
        [task] = tasks(lab, job, "image", ["--name", "x"])
        assert task["LOADED"] == "image"

    def test_outside_of_an_image_the_hosts_pose_requeues(self, lab: Lab, image: dict[str, str], project: Path) -> None:
        [task] = tasks(lab, lab.sbatch(SCRIPT, "--name", "x", cwd=project, env=image), None, ["--name", "x"])
        assert task["LOADED"] == "image"

    def test_a_module_that_cannot_be_loaded_ends_the_job(self, lab: Lab, project: Path, profile: Path) -> None:
        job = lab.sbatch(SCRIPT, cwd=project, env=self.environment(profile, '[ "$2" != cuda ]'))
        with pytest.raises(LabError, match=r"train\.sh: module load cuda failed"):
            lab.wait(job, "COMPLETED")

    def test_a_missing_profile_ends_the_job(self, lab: Lab, project: Path, tmp_path: Path) -> None:
        job = lab.sbatch(SCRIPT, cwd=project, env={"POSE_SITE": str(tmp_path / "no.yaml")})
        with pytest.raises(LabError, match=r"no such site profile[\s\S]*train\.sh: the site profile .* cannot be used"):
            lab.wait(job, "COMPLETED")


def test_outside_slurm_it_says_how(lab: Lab) -> None:
    done = lab.run([SCRIPT], check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "train.sh: this is a batch script: sbatch slurm/train.sh --config FILE ...\n",
    )
