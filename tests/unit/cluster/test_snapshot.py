"""A run's copy of the code: whole, once, described, without secrets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import snapshot
from cluster.snapshot import code_digest, describe, record_start, take_snapshot
from poselib.errors import InputError

pytestmark = pytest.mark.unit

GIT = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"), "someone@example.org")
GIT |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in GIT.items()}
ASK = "import cluster, json, pose; print(json.dumps([cluster.__file__, pose.__file__, cluster.VALUE]))"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small project of the same shape, with a revision."""
    root = tmp_path / "project"
    files = {
        "pose.py": "",
        "pyproject.toml": "",
        "cluster/__init__.py": "VALUE = 1\n",
        "cluster/templates/page.html": "<p>",
        "configs/demo.yaml": "name: demo\n",
        "slurm/train.sh": "#!/bin/sh\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "slurm/train.sh").chmod(0o755)
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=root, check=True, env=os.environ | GIT)
    return root


def test_what_can_be_imported_is_copied_and_nothing_else(checkout, tmp_path):
    (checkout / "cluster/new.py").write_text("not yet known to git")
    (checkout / ".env").write_text("TOKEN=1")
    (checkout / "cluster/.hidden.py").write_text("")
    (checkout / "cluster/__pycache__").mkdir()
    (checkout / "cluster/__pycache__/old.py").write_text("")
    (checkout / "runs").mkdir()
    taken = take_snapshot(tmp_path / "run", checkout)
    copied = {str(path.relative_to(taken.folder)) for path in taken.folder.rglob("*") if path.is_file()}
    assert copied == {
        *("pose.py", "pyproject.toml", "cluster/__init__.py", "cluster/new.py", "cluster/templates/page.html"),
        *("configs/demo.yaml", "slurm/train.sh", "snapshot.json", "changes.diff"),
    }
    assert os.access(taken.folder / "slurm/train.sh", os.X_OK)
    assert code_digest(taken.folder) == taken.digest == code_digest(checkout)


def test_a_job_runs_the_copy_whatever_becomes_of_the_code(checkout, tmp_path):
    taken = take_snapshot(tmp_path / "run", checkout)
    (checkout / "cluster/__init__.py").write_text("VALUE = 2\n")
    environment = {"PYTHONPATH": str(checkout)}
    environment |= taken.environment(environment)
    for words in (["-c", ASK], ["-m", "ask"]):
        (checkout / "ask.py").write_text(ASK)
        done = subprocess.run(
            [sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True, check=True
        )
        files = [str(taken.folder / name) for name in ("cluster/__init__.py", "pose.py")]
        assert json.loads(done.stdout) == [*files, 1]


def test_the_same_code_is_copied_once_and_other_code_beside(checkout, tmp_path):
    first = take_snapshot(tmp_path / "run", checkout)
    assert take_snapshot(tmp_path / "run", checkout) == first
    (checkout / "cluster/__init__.py").write_text("VALUE = 2\n")
    second = take_snapshot(tmp_path / "run", checkout)
    assert sorted((tmp_path / "run" / "code").iterdir()) == sorted([first.folder, second.folder])


def test_the_diff_says_what_the_revision_does_not(checkout, tmp_path):
    (checkout / "cluster/__init__.py").write_text("VALUE = 2\n")
    (checkout / "secret.txt").write_text("not ours")
    taken = take_snapshot(tmp_path / "run", checkout)
    diff = (taken.folder / "changes.diff").read_text()
    assert "-VALUE = 1\n+VALUE = 2\n" in diff
    assert "secret" not in diff


def test_a_snapshot_of_a_snapshot_keeps_its_story(checkout, tmp_path):
    (checkout / "cluster/__init__.py").write_text("VALUE = 2\n")
    first = take_snapshot(tmp_path / "run", checkout)
    second = take_snapshot(tmp_path / "other", first.folder)
    assert second.digest == first.digest
    assert (second.folder / "changes.diff").read_bytes() == (first.folder / "changes.diff").read_bytes() != b""


def test_an_edited_snapshot_is_refused(checkout, tmp_path):
    taken = take_snapshot(tmp_path / "run", checkout)
    (taken.folder / "pose.py").chmod(0o644)
    (taken.folder / "pose.py").write_text("edited")
    with pytest.raises(InputError, match="no longer the code it was made from"):
        take_snapshot(tmp_path / "run", checkout)


def test_an_interrupted_copy_is_no_snapshot(checkout, tmp_path, monkeypatch):
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot, "_sync", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        take_snapshot(tmp_path / "run", checkout)
    assert list((tmp_path / "run" / "code").iterdir()) == []


def test_code_that_is_edited_during_the_copy_is_copied_again(checkout, tmp_path, monkeypatch):
    copy, calls = snapshot._copy, []

    def edit_then_copy(root: Path, partial: Path, digest: str) -> None:
        if not calls:
            (root / "cluster/__init__.py").write_text("VALUE = 3\n")
        calls.append(digest)
        copy(root, partial, digest)

    monkeypatch.setattr(snapshot, "_copy", edit_then_copy)
    taken = take_snapshot(tmp_path / "run", checkout)
    assert (taken.folder / "cluster/__init__.py").read_text() == "VALUE = 3\n"
    assert [path.name for path in (tmp_path / "run/code").iterdir()] == [taken.digest[:16]]


def test_an_installed_package_needs_no_copy(checkout, tmp_path):
    (checkout / "pyproject.toml").unlink()
    taken = take_snapshot(tmp_path / "run", checkout)
    assert (taken.folder, taken.environment()) == (None, {})
    assert not (tmp_path / "run").exists()


def test_a_start_leaves_its_code_and_its_environment(checkout, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    for value in ("INFO", "WARN"):
        monkeypatch.setenv("NCCL_DEBUG", value)
        record_start(run, checkout)
    told = json.loads((run / "environment.json").read_text())
    assert told["environment"]["NCCL_DEBUG"] == "WARN"
    assert [path.name for path in (run / "code").iterdir()] == [told["code"]]


def test_the_story_holds_versions_and_no_secret():
    told = describe(
        environ={"NCCL_DEBUG": "WARN", "SLURM_JWT": "x", "SLURM_JOB_ID": "7", "AWS_SECRET": "x", "HOME": "/"}
    )
    assert told["environment"] == {"NCCL_DEBUG": "WARN", "SLURM_JOB_ID": "7"}
    assert told["packages"]["torch"]
    assert told["python"] == sys.version.split()[0]


def test_the_projects_own_packages_are_all_taken(tmp_path):
    root = Path(snapshot.__file__).parents[1]
    taken = take_snapshot(tmp_path / "run")
    done = subprocess.run(
        ["git", "ls-files", *snapshot._PARTS, *snapshot._FILES], cwd=root, capture_output=True, text=True, check=True
    )
    tracked = {name for name in done.stdout.splitlines() if (root / name).is_file()}
    missing = {name for name in tracked if not (taken.folder / name).is_file()}
    assert missing == set()
    assert json.loads((taken.folder / "snapshot.json").read_text())["revision"]
    assert sum(path.stat().st_size for path in taken.folder.rglob("*")) < 10_000_000
