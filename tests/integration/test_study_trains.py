"""`pose study report-tables` as users run it: a real training of one row, its score, and the tables."""

import json
import subprocess
import sys

import pytest

from tune.settings_study import ReportTablesSettings
from tune.study_cases import all_cases, asked_for

pytestmark = [pytest.mark.integration, pytest.mark.drill, pytest.mark.timeout(1800)]


def test_a_row_is_trained_scored_and_written(tmp_path):
    words = ["--scale", "studio", "--only", "table3", "--seeds", "[0]", "--epochs", "1", "--tracking.enabled", "false"]
    words += ["--parallel", "1", "--minutes", "0.001"]  # no second one
    words += ["--studio.frames", "2", "--studio.frame_px", "300", "--studio.mpii_pictures", "24"]
    words += ["--runs_dir", str(tmp_path / "runs"), "--work", str(tmp_path / "data")]
    command = [sys.executable, "-m", "pose", "study", "report-tables", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout + done.stderr

    first, *others = asked_for(ReportTablesSettings(only="table3"), all_cases(ReportTablesSettings(scale="studio")))
    folder = tmp_path / "runs" / "report-tables-studio"
    score = json.loads((folder / f"{first.run.name}-seed0" / "score.json").read_text())["mpjpe_mm"]
    assert f"[1/{1 + len(others)}] {first.run.name}-seed0: S8 " in done.stdout
    assert f"S9 and S11 {score:.1f} mm" in done.stdout
    assert f"1 trained, 1 at the same time; {len(others)} trainings are still to be done" in done.stdout
    (row,) = (one for one in (folder / "tables.md").read_text().splitlines() if f"| {score:.1f} | – | 1 |" in one)
    assert "S9, S11" in row
    assert f"{score:.1f}" in (folder / "tables.html").read_text()
