"""Comparing nodes, the table of many, and the meeting itself, with a thread for each rank."""

import io
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from cluster.doctor.compare import compare
from cluster.doctor.finding import Finding, NodeReport
from cluster.doctor.meeting import Meeting, resolve
from cluster.doctor.shared_folder import SharedFolder
from cluster.doctor.table import show
from cluster.world import World, free_port
from poselib.errors import InputError

pytestmark = pytest.mark.unit

FACTS = {"Python": "3.11.7", "packages": {"torch": "2.13.0", "numpy": "2.4.6"}, "GPUs": ["H200"] * 8, "code": "a"}


def node(number, **facts):
    return NodeReport(f"n{number}", (Finding("disk", "ok", f"{number} GB"),), FACTS | facts)


def of(report, check):
    return next(finding for finding in report.findings if finding.check == check)


def test_a_report_travels_as_text():
    assert NodeReport.from_json(node(1).to_json()) == node(1)


def test_the_odd_node_is_named_not_the_others():
    old = {"torch": "2.12.0", "numpy": "2.4.6"}
    first, second, third = compare([node(1, packages=old), node(2), node(3)])
    assert of(first, "same packages").status == "fail"
    assert of(first, "same packages").says == "torch 2.12.0, elsewhere 2.13.0"
    assert {of(report, "same packages").status for report in (second, third)} == {"ok"}


def test_other_gpus_slow_all_down_and_other_code_is_wrong():
    _, _, third = compare([node(1), node(2), node(3, GPUs=["A100"] * 8, code="b")])
    assert (of(third, "same GPUs").status, of(third, "same GPUs").says) == ("warn", "8 x A100, elsewhere 8 x H200")
    assert of(third, "same code").status == "fail"


def test_one_node_has_nothing_to_compare():
    assert compare([node(1)]) == [node(1)]


def test_many_nodes_stay_a_short_table_with_advice():
    sick = NodeReport("n9", (Finding("disk", "fail", "0 GB [free]", "make room"),))
    text = io.StringIO()
    show([*map(node, range(1, 9)), sick], Console(file=text, width=120))
    shown = text.getvalue()
    lines = [line.split() for line in shown.splitlines() if line.strip().startswith("disk")]
    assert lines[0][:3] == ["disk", "fail", "n9"]
    assert lines[1][1] == "ok"
    assert "n1, n2, n3, n4, n5, n6 and 2 more" in shown
    assert "1 GB ... 8 GB" in shown
    assert "fail  disk on n9: 0 GB [free]; make room" in shown


def meet(size, act, timeout_s=20.0):
    """`act(meeting)` of each rank, all at the same time, each a node of its own."""
    port = free_port()
    places = [World(rank, size, 0, 1, "127.0.0.1", port, "test") for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        # Rank 0 serves all, so it must not leave before the others have finished.
        meetings = list(pool.map(lambda world: Meeting(world, timeout_s), places))
        return list(pool.map(act, meetings))


def test_ranks_meet_and_their_clocks_agree():
    def act(meeting):
        return [member.rank for member in meeting.leads], meeting.clock()

    answers = meet(3, act)
    assert [ranks for ranks, _ in answers] == [[0, 1, 2]] * 3
    assert {finding.status for _, finding in answers} == {"ok"}


def look(meeting, folder):
    """What a node finds of a folder, once all have looked."""
    shared = SharedFolder(meeting, folder)
    found = shared.check()
    meeting.say(f"done/{meeting.world.rank}", True)
    meeting.hear_all("done", [0, 1], 20)
    shared.clean()
    return [(finding.status, finding.says) for finding in found]


def test_a_folder_is_seen_and_locked_by_all_and_left_clean(tmp_path):
    runs = tmp_path / "runs"
    well = [("ok", f"{tmp_path} is one for all, writable"), ("ok", "locks count on all nodes")]
    assert meet(2, lambda meeting: look(meeting, runs)) == [well, well]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_hides_the_others_files_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("cluster.doctor.shared_folder._sees", lambda file, nonce: False)
    first, second = meet(2, lambda meeting: look(meeting, tmp_path))
    assert first[0][0] == "ok"
    [(status, says)] = second
    assert (status, says.startswith("does not see what")) == ("fail", True)


@pytest.mark.parametrize(
    ("answer", "statuses"), [("no locks here", ["warn", "warn"]), ("held", ["ok", "warn"]), ("busy", ["ok", "ok"])]
)
def test_locks_that_do_not_reach_across_nodes_are_a_warning(tmp_path, monkeypatch, answer, statuses):
    monkeypatch.setattr("cluster.doctor.shared_folder.take", lambda stream: answer)
    found = meet(2, lambda meeting: look(meeting, tmp_path))
    assert [status for _, (status, _) in found] == statuses


def test_who_does_not_come_is_left_out():
    port = free_port()
    meeting = Meeting(World(0, 2, 0, 1, "127.0.0.1", port, "test"), 1.0)
    assert [member.rank for member in meeting.members] == [0]


def test_an_address_that_nobody_serves_is_one_line():
    world = World(1, 2, 0, 1, "127.0.0.1", free_port(), "test")
    with pytest.raises(InputError, match=r"cannot reach rank 0 at 127.0.0.1:\d+ \(Connection refused\)"):
        Meeting(world, 0.5)


def test_a_port_that_is_taken_is_one_line():
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=f"rendezvous port 127.0.0.1:{port} is taken"):
            Meeting(World(0, 2, 0, 1, "127.0.0.1", port, "test"), 1.0)


def test_names_resolve_or_not():
    assert "127.0.0.1" in resolve("localhost")
    assert resolve("no-such-host.invalid") == []
