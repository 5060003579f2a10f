import errno
import json
import math
import os
import resource
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.tracking.delivery import Batch, Ledger
from cluster.tracking.files import read_json, write_json
from cluster.tracking.journal import JOURNAL_NAME, Journal, NullJournal, curve, read_metrics, read_records
from cluster.tracking.provenance import code_version, git_commit, provenance_tags
from cluster.tracking.settings import TrackingSettings
from cluster.tracking.ui import ui
from cluster.world import free_port
from poselib.errors import InputError

pytestmark = pytest.mark.unit


def kinds(run_dir: Path) -> list[str]:
    return [record["kind"] for record, _ in read_records(run_dir)]


def delivered(run_dir: Path) -> Batch:
    """What MLflow gets of a whole journal."""
    ledger, batch = Ledger(), Batch()
    for record, _ in read_records(run_dir):
        ledger.admit(record, batch)
    return batch


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "new" / "run") as journal:
        journal.metrics(1, {"train/loss": 0.5, "train/lr": 1e-4})
        journal.metrics(2, {"train/loss": math.nan, "up": math.inf, "down": -math.inf})
    history = read_metrics(tmp_path / "new" / "run")
    assert [entry.step for entry in history] == [1, 2]
    assert history[0].values == {"train/loss": 0.5, "train/lr": 1e-4}
    assert math.isnan(history[1].values["train/loss"])
    assert history[1].values["up"] == math.inf
    assert history[1].values["down"] == -math.inf
    assert curve(history, "train/lr") == ([1], [1e-4])


def test_every_line_is_strict_json(tmp_path: Path) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    with Journal(tmp_path) as journal:
        journal.metrics(1, {"a": math.nan, "b": -math.inf})
        journal.params({"path": Path("x"), "many": (1, math.inf), "none": None})
        journal.tags({"text": "line\nbreak"})
        journal.status("stopped")
    for line in (tmp_path / JOURNAL_NAME).read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    assert kinds(tmp_path) == ["run", "metrics", "params", "tags", "status"]


def test_the_key_is_written_once(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    first = list(read_records(tmp_path))
    Journal(tmp_path).close()
    assert list(read_records(tmp_path)) == first
    assert len(first[0][0]["key"]) == 32


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_killed_writers_last_line_goes_and_no_other(tmp_path: Path, cut: int) -> None:
    with Journal(tmp_path) as journal:
        journal.metrics(1, {"loss": 1.0})
        journal.metrics(2, {"loss": 2.0})
    path = tmp_path / JOURNAL_NAME
    path.write_bytes(path.read_bytes()[:-cut])
    assert [entry.step for entry in read_metrics(tmp_path)] == [1]
    with Journal(tmp_path) as journal:
        journal.metrics(3, {"loss": 3.0})
    # Without its newline alone, the record is whole and stays.
    assert [entry.step for entry in read_metrics(tmp_path)] == ([1, 2, 3] if cut == 1 else [1, 3])
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_reader_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.metrics(1, {"loss": 1.0})
        *_, (_, end) = read_records(tmp_path)
        journal.metrics(2, {"loss": 2.0})
        assert [record["step"] for record, _ in read_records(tmp_path, end)] == [2]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class HalfFull:
        """Takes ten bytes of the next line, as a disk does that fills up."""

        def __init__(self, file: object) -> None:
            self.file = file

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            return self.file.write(data[:10])  # type: ignore[attr-defined]

    with Journal(tmp_path) as journal:
        journal.metrics(1, {"loss": 1.0})
        with monkeypatch.context() as patch:
            patch.setattr(journal, "_file", HalfFull(journal._file))
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                journal.metrics(2, {"loss": 2.0})
        journal.metrics(3, {"loss": 3.0})
    assert [entry.step for entry in read_metrics(tmp_path)] == [1, 3]


def test_a_file_that_cannot_grow_is_named(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        path = tmp_path / JOURNAL_NAME
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limits[1]))
        try:
            with pytest.raises(OSError, match=str(path)):
                journal.metrics(1, {"train/loss": 1.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_rewind_voids_the_steps_behind_it(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for step in (1, 2, 3, 4):
            journal.metrics(step, {"loss": step})
        journal.rewind(2)
        for step in (3, 4, 5):
            journal.metrics(step, {"loss": 10 * step})
    assert curve(read_metrics(tmp_path), "loss") == ([1, 2, 3, 4, 5], [1, 2, 30, 40, 50])


def test_what_is_logged_again_is_delivered_once(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.params({"lr": 1e-4})
        for step in (1, 2, 3):
            journal.metrics(step, {"loss": step})
        journal.rewind(1)
        journal.params({"lr": 1e-4, "world": 2})
        for step in (2, 3, 4):
            journal.metrics(step, {"loss": step, "extra": 0})
        journal.params({"world": 4})
    batch = delivered(tmp_path)
    points = [(step, name) for name, _, _, step in batch.metrics]
    assert len(points) == len(set(points))
    assert sorted(points) == sorted([(s, "loss") for s in (1, 2, 3, 4)] + [(s, "extra") for s in (2, 3, 4)])
    assert batch.params == {"lr": 1e-4, "world": 2}
    assert batch.tags == {"resumed.world": "4"}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=30), st.integers(0, 30))
def test_where_a_delivery_was_cut_does_not_matter(events: list[tuple[bool, int]], cut: int) -> None:
    records: list[dict[str, object]] = [
        {"kind": "rewind", "step": step}
        if is_rewind
        else {"kind": "metrics", "step": step, "time": float(i), "values": {"a": float(i)}}
        for i, (is_rewind, step) in enumerate(events)
    ]
    whole, once = Ledger(), Batch()
    for record in records:
        whole.admit(record, once)
    # A second process enters what the first had sent, then sends the rest.
    second, before, after = Ledger(), Batch(), Batch()
    for index, record in enumerate(records):
        second.admit(record, before if index < cut else after)
    assert before.metrics + after.metrics == once.metrics


def test_artifacts_stay_inside_the_run(tmp_path: Path) -> None:
    with Journal(tmp_path / "run") as journal:
        journal.artifact(tmp_path / "run" / "pictures" / "a.png", folder="pictures")
        journal.artifact("score.html")
        with pytest.raises(ValueError, match="outside"):
            journal.artifact("../other/secret.txt")
    assert delivered(tmp_path / "run").artifacts == [("pictures/a.png", "pictures"), ("score.html", "")]


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with NullJournal() as journal:
        journal.metrics(1, {"loss": 1.0})
        journal.params({"a": 1})
        journal.tags({"a": "b"})
        journal.artifact("x")
        journal.rewind(0)
        journal.status("finished")
    assert list(tmp_path.iterdir()) == []


def test_problems_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        Journal(tmp_path / "file")
    with pytest.raises(InputError, match="give the folder of a run"):
        read_metrics(tmp_path / "missing")


def test_the_page_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    with pytest.raises(InputError, match=r"no mlflow\.db"):
        ui(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(b"")
    with pytest.raises(InputError, match=r"1\.\.65535"):
        ui(tmp_path, port=1 << 16)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="choose another --port"):
            ui(tmp_path, port=taken.getsockname()[1])
    with pytest.raises(InputError, match="is no MLflow store"):
        ui(tmp_path, port=free_port())
    assert started == []


@pytest.mark.parametrize(
    ("uri", "said"),
    [("runs/mlruns", "begin with"), ("file:///tmp/mlruns", "begin with"), ("https://me:secret@host", "password")],
)
def test_a_store_that_cannot_be_is_refused(uri: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrackingSettings(uri=uri)


def test_small_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert read_json(path) == {}
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": math.nan})
    assert read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]
    path.write_text('{"a": ')
    assert read_json(path) == {}


def test_a_result_names_its_code(tmp_path: Path) -> None:
    commit = git_commit()
    tags = provenance_tags(tmp_path, "card")
    assert tags["mlflow.note.content"] == "card"
    assert tags["posecluster.run_dir"] == str(tmp_path.resolve())
    assert tags["posecluster.version"] == code_version()
    assert tags["mlflow.source.name"] == "pose"
    assert tags.get("mlflow.source.git.commit", "") == commit
    assert commit[:12] in code_version()
