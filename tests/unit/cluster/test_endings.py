"""Notes of how ranks ended, and the node that they speak against."""

import pytest

from cluster.endings import Ending, failed_node, forget_endings, note_ending, read_endings
from cluster.world import Job

pytestmark = pytest.mark.unit

HOSTS = ["n1", "n2", "n3"]


def lost(rank: int, host: str) -> Ending:
    return Ending(rank, host, "lost the other ranks", True)


def failed(rank: int, host: str) -> Ending:
    return Ending(rank, host, "CUDA error: uncorrectable ECC error", False)


def test_notes_are_of_one_start(tmp_path):
    for ending in (lost(1, "n1"), failed(0, "n2")):
        note_ending(tmp_path, Job("7", 1), ending)
    note_ending(tmp_path, Job("7", 0), lost(5, "n3"))
    assert read_endings(tmp_path, Job("7", 1)) == [failed(0, "n2"), lost(1, "n1")]
    forget_endings(tmp_path)
    assert read_endings(tmp_path, Job("7", 1)) == []


def test_a_run_that_never_began_gets_no_folder(tmp_path):
    note_ending(tmp_path / "run", Job("7"), lost(0, "n1"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("endings", "node"),
    [
        ([lost(0, "n1"), failed(1, "n2"), lost(2, "n3")], "n2"),
        ([lost(0, "n1"), lost(2, "n3")], "n2"),
        ([lost(0, "n1"), failed(1, "n1"), lost(2, "n2"), lost(3, "n3")], "n1"),
        ([lost(0, "n1"), lost(1, "n2"), lost(2, "n3")], ""),
        ([failed(0, "n1"), failed(1, "n2"), lost(2, "n3")], ""),
        ([lost(0, "n1")], ""),
        ([], ""),
    ],
)
def test_one_node_is_named_where_all_others_only_lost_it(endings, node):
    assert failed_node(HOSTS, endings) == node


def test_a_job_on_one_node_has_no_node_to_avoid():
    assert failed_node(["n1"], [failed(0, "n1")]) == ""
