"""What was submitted, how it stands, and its logs: from records, from Slurm's words, and from the files of runs."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import pose
from cluster.job_records import JobRecord, matching, read_records, write_record
from cluster.job_states import State, read_states
from cluster.tracking.files import write_json
from cluster.tracking.journal import Journal
from poselib.errors import InputError

pytestmark = pytest.mark.unit

SQUEUE = '#!/bin/sh\nprintf "%s\\n" "7_0|RUNNING|n[1-2]" "7_1|PENDING|(Resources)" "9|FAILED|(NonZeroExitCode)"\n'
SACCT = '#!/bin/sh\nprintf "%s\\n" "5|CANCELLED by 0" "6|PREEMPTED"\n'


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def record(folder: Path, job: str, submitted: float = 0.0, run: str = "", ranks: int = 2) -> JobRecord:
    logs = tuple(str(folder / f"{job}_{rank}_log.out") for rank in range(ranks))
    made = JobRecord(job, f"train-{job}", "slurm", "login", submitted, logs, run)
    write_record(folder, made)
    return made


@pytest.fixture
def jobs_dir(tmp_path, monkeypatch) -> Path:
    """A folder for records, and a PATH on which no Slurm is."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "jobs").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    program(tmp_path / "bin", "squeue", "#!/bin/sh\nexit 1\n")
    program(tmp_path / "bin", "sacct", "#!/bin/sh\nexit 1\n")
    return tmp_path / "jobs"


@pytest.fixture
def slurm(jobs_dir) -> None:
    program(jobs_dir.parent / "bin", "squeue", SQUEUE)
    program(jobs_dir.parent / "bin", "sacct", SACCT)


@pytest.mark.usefixtures("slurm")
def test_the_queue_speaks_first_then_accounting(jobs_dir):
    records = [record(jobs_dir, job) for job in ("7_0", "7_1", "9", "5", "6", "4")]
    states = read_states(records)
    assert states["7_0"] == State("running", "n[1-2]")
    assert states["7_1"] == State("pending", "Resources")
    assert (states["9"].word, states["9"].ended) == ("failed", True)
    assert [states[job].word for job in ("5", "6", "4")] == ["cancelled", "cancelled", "ended"]


def test_without_slurm_the_run_speaks(jobs_dir, tmp_path):
    for status in ("finished", "running"):
        with Journal(tmp_path / status) as journal:
            journal.status(status)
    records = [record(jobs_dir, name, run=str(tmp_path / name)) for name in ("finished", "running")]
    states = read_states([*records, record(jobs_dir, "12")])
    assert states["finished"] == State("finished")
    assert states["running"] == State("unknown", "its run says failed"), "nobody holds its folder"
    assert states["12"] == State("unknown")


def test_records_come_newest_first_and_damaged_ones_are_passed_over(jobs_dir):
    made = [record(jobs_dir, "7_1", 1.0), record(jobs_dir, "7_0", 1.0), record(jobs_dir, "12", 2.0)]
    (jobs_dir / "13.job.json").write_text("{}")
    (jobs_dir / "14.job.json").write_text("half")
    found = read_records(jobs_dir)
    assert found == [made[2], made[1], made[0]]
    assert matching(found, "7") == [made[1], made[0]]
    assert matching(found, "7_1") == [made[0]]
    assert matching(found, "train-12") == [made[2]]
    with pytest.raises(InputError, match="no job '99' was submitted from here; the newest are 12, 7_0, 7_1"):
        matching(found, "99")


@pytest.mark.usefixtures("slurm")
def test_jobs_lists_state_step_speed_and_link(jobs_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    run = tmp_path / "runs" / "tiny-seed0"
    with Journal(run) as journal:
        journal.metrics(40, {"train/loss": 1.0, "train/images_per_s": 812.4})
        journal.metrics(41, {"val/mpjpe_mm": 90.0})
    write_json(run / ".delivered.json", {"uri": "http://host:5000/", "run_id": "abc", "offset": 1})
    record(jobs_dir, "7_0", 2.0, str(run))
    record(jobs_dir, "7_1", 2.0, str(tmp_path / "runs" / "none"))
    assert pose.main(["jobs", "--jobs_dir", str(jobs_dir)]) == 0
    shown = capsys.readouterr().out
    [row] = [line for line in shown.splitlines() if line.strip().startswith("7_0")]
    assert row.split() == ["7_0", "tiny-seed0", "running", "(n[1-2])", "40", "812", "http://host:5000/#/runs/abc"]
    assert "pending (Resources)" in shown
    assert "2 jobs; next: pose logs 7_0" in shown


def test_logs_of_all_ranks_are_prefixed(jobs_dir, capsys):
    record(jobs_dir, "7_0")
    record(jobs_dir, "7_1", ranks=1)
    (jobs_dir / "7_0_0_log.out").write_text("one\ntwo\nno end")
    (jobs_dir / "7_0_1_log.out").write_bytes(b"three\n\xff\n")
    assert pose.main(["logs", "7_0", "--jobs_dir", str(jobs_dir), "--follow", "false"]) == 0
    assert capsys.readouterr().out.splitlines() == ["0: one", "0: two", "1: three", "1: �", "0: no end"]
    assert pose.main(["logs", "7", "--jobs_dir", str(jobs_dir), "--follow", "false"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "train-7_0 0: one"
    assert "job 7_1 is unknown; its logs come to" in shown.err


def test_a_log_that_names_its_ranks_is_shown_as_it_is(jobs_dir, capsys):
    made = [
        JobRecord(job, "train-x", "slurm", "login", 0.0, (str(jobs_dir / f"{job}.out"),), labelled=True)
        for job in ("8_0", "8_1")
    ]
    for one in made:
        write_record(jobs_dir, one)
        Path(one.logs[0]).write_text("0: one\n1: two\njob 8 goes back\n")
    assert pose.main(["logs", "8_0", "--jobs_dir", str(jobs_dir), "--follow", "false"]) == 0
    assert capsys.readouterr().out.splitlines() == ["0: one", "1: two", "job 8 goes back"]
    assert pose.main(["logs", "8", "--jobs_dir", str(jobs_dir), "--follow", "false"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "train-x: 0: one"


def test_logs_follow_until_the_job_has_ended(jobs_dir, capsys):
    made = record(jobs_dir, "9", ranks=1)
    log, state = Path(made.logs[0]), jobs_dir.parent / "state"
    state.write_text("RUNNING")
    program(jobs_dir.parent / "bin", "squeue", f'#!/bin/sh\necho "9|$(cat {state})|x"\n')
    log.write_text("first\n")

    def go_on() -> None:
        time.sleep(1)
        with log.open("a") as file:
            file.write("second\nlast")
        state.write_text("COMPLETED")

    other = threading.Thread(target=go_on)
    other.start()
    assert pose.main(["logs", "9", "--jobs_dir", str(jobs_dir)]) == 0
    other.join()
    assert capsys.readouterr().out == "0: first\n0: second\n0: last\n"


def test_a_local_job_is_a_process(jobs_dir):
    import socket

    process = subprocess.Popen([sys.executable, "-c", "input()", "submitit"], stdin=subprocess.PIPE)
    made = JobRecord(str(process.pid), "x", "local", socket.gethostname(), 0.0, ("log",))
    while b"submitit" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    assert read_states([made])[made.id].word == "running"
    process.communicate(b"\n")
    assert read_states([made])[made.id].word == "ended"


def test_without_any_job_it_says_how(jobs_dir, capsys):
    assert pose.main(["jobs", "--jobs_dir", str(jobs_dir)]) == 0
    assert "next: pose submit train" in capsys.readouterr().out
    assert pose.main(["jobs", "--jobs_dir", str(jobs_dir / os.sep / "nowhere")]) == 1
