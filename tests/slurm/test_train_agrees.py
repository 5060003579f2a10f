"""Nodes that differ are named in one line before the first step, and the job ends."""

import shutil
from importlib.metadata import distribution
from pathlib import Path

import pytest

import drill
from cluster.snapshot import take_snapshot
from lab import Lab

pytestmark = [pytest.mark.slurm, pytest.mark.drill]


@pytest.fixture
def refused(shard_sets: dict[str, Path], tmp_path: Path):
    """Start a training on two nodes after `spoil(lab, shards)`; gives what the failed job said."""

    def run(spoil) -> str:
        shards = {name: Path(shutil.copytree(folder, tmp_path / name)) for name, folder in shard_sets.items()}
        with Lab(nodes=2) as lab:
            spoil(lab, shards)
            training = drill.start(lab, tmp_path / "job", shards)
            lab.wait(training.job, "FAILED", seconds=120)
            assert lab.job(training.job)["Restarts"] == "0"
            assert not training.steps()
            return training.output()

    return run


def test_a_shard_set_that_one_node_does_not_see(refused) -> None:
    said = refused(lambda lab, shards: lab.run(["mount", "-t", "tmpfs", "none", shards["h36m"]], node="n2"))
    assert "pose train: rank 1 on n2: " in said
    assert "h36m" in said


def other_on_n2(lab: Lab, file: Path, text: str, tmp_path: Path) -> None:
    """On that node the file holds this text."""
    (tmp_path / "other").write_text(text)
    lab.run(["mount", "--bind", tmp_path / "other", file], node="n2")


def test_a_node_with_other_code(refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = take_snapshot(tmp_path / "job" / "runs" / "drill")
    for name, value in snapshot.environment().items():
        monkeypatch.setenv(name, value)
    copy = snapshot.folder / "cluster" / "keys.py"
    said = refused(lambda lab, shards: other_on_n2(lab, copy, f"{copy.read_text()}# edited\n", tmp_path))
    assert "pose train: n2: other code than on the other nodes; see `pose doctor`" in said


def test_a_node_with_other_packages(refused, tmp_path: Path) -> None:
    installed = distribution("rich")
    file = Path(str(installed.locate_file(f"rich-{installed.version}.dist-info/METADATA")))
    other = file.read_text().replace(f"\nVersion: {installed.version}\n", "\nVersion: 0.0.1\n")
    said = refused(lambda lab, shards: other_on_n2(lab, file, other, tmp_path))
    assert "pose train: n2: other packages than on the other nodes; see `pose doctor`" in said
