"""Trainings of a study at the same time, with a stand-in for `pose train`: real processes, journals and signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tune.settings_study import ReportTablesSettings
from tune.study_cases import all_cases, asked_for, unfinished
from tune.study_here import at_once

pytestmark = [pytest.mark.unit, pytest.mark.timeout(120)]

STAND_IN = """
import signal, sys, time
from pathlib import Path
from cluster.config import load
from cluster.settings import Run
from cluster.tracking.journal import Journal

config = Path(sys.argv[sys.argv.index("--config") + 1])
run, stopped = load(Run, config), []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
(run.folder / "run.yaml").write_text(config.read_text())
with Journal(run.folder) as journal:
    journal.status("running")
    journal.metrics(1, {"val/mpjpe_mm": 100.0 + run.seed, "train/epoch": 1.0})
    if run.seed == 7:
        sys.exit("pose train: seven cannot be trained")
    Path(run.name).touch()
    deadline = time.monotonic() + 60
    while not stopped and (WAIT or len(list(Path().glob("*-seed?"))) < 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    alone = len(list(Path().glob("*-seed?"))) < 2
    journal.status("stopped" if stopped else "failed" if alone else "finished")
"""
DRIVER = "import sys; sys.path = [p for p in sys.path if p]; import pose; sys.exit(pose.main(sys.argv[1:]))"
WORDS = ("study", "report-tables", "--only", "table5", "--tracking.enabled", "false", "--parallel", "2")


def start(folder: Path, *words: str, waits: bool = False) -> subprocess.Popen[str]:
    """The study in a folder whose `pose.py` is the stand-in; its trainings wait for each other, or for a signal."""
    (folder / "pose.py").write_text(STAND_IN.replace("WAIT", str(waits)))
    command = [sys.executable, "-c", DRIVER, *WORDS, *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_run_at_the_same_time_and_one_that_fails_ends_no_other(tmp_path):
    study = start(tmp_path, "--seeds", "[0,7]")
    said, errors = study.communicate(timeout=100)
    assert "4 trainings to do, 2 at the same time" in said
    assert said.count("-seed0: S8 100.0 mm at epoch 1 (") == 2
    assert said.count("-seed7: failed: seven cannot be trained") == 2
    assert study.returncode == 1
    assert "2 of 4 trainings failed, first " in errors
    assert "| 100.0 |" in (tmp_path / "runs" / "report-tables" / "tables.md").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_has_all_of_them_save_and_end(number, tmp_path):
    study = start(tmp_path, "--seeds", "[0,1]", waits=True)
    while len(list(tmp_path.glob("*-seed?"))) < 2:
        time.sleep(0.05)
        assert study.poll() is None, study.communicate()
    study.send_signal(number)
    said, errors = study.communicate(timeout=60)
    assert study.returncode == 130
    assert f"{number.name}: waiting for 2 trainings to save" in said
    assert "run the same command again to go on" in errors
    journals = list((tmp_path / "runs" / "report-tables").glob("*/metrics.jsonl"))
    assert len(journals) == 2
    assert all('"value": "stopped"' in path.read_text() for path in journals)


@pytest.mark.parametrize(
    ("scale", "parallel", "expected"),
    [("full", 0, 1), ("full", 3, 3), ("studio", 0, len(os.sched_getaffinity(0))), ("studio", 1, 1)],
)
def test_how_many_at_the_same_time(scale, parallel, expected, tmp_path):
    settings = ReportTablesSettings(scale=scale, parallel=parallel, runs_dir=tmp_path)
    missing = list(unfinished(asked_for(settings, all_cases(settings)), settings.seeds))
    assert at_once(settings, missing) == min(expected, len(missing))
    assert at_once(settings, missing[:1]) == 1
