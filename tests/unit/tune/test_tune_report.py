"""The page of a search: what stands on it, and that it needs no network."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.config import dump
from cluster.settings import DataSettings
from cluster.tracking.journal import Journal
from poselib.errors import InputError
from tune.figures import importances
from tune.records import SEARCH_YAML, TrialRecord, write_trial
from tune.report import report_search, write_page
from tune.settings import SearchSettings, TuneReportSettings, TuneSettings

pytestmark = pytest.mark.unit

MPJPE, SPEED = "val/mpjpe_mm", "train/images_per_s"


def searched(runs: Path, metrics: tuple[str, ...], modes: tuple, trials: int = 12) -> TuneSettings:
    """A search in which the rate decides over the error, the depth over the speed; the last trial has failed."""
    settings = TuneSettings(
        name="a<b>",
        runs_dir=runs,
        epochs=9,
        data=DataSettings(h36m="x"),
        space={
            "optimizer.lr": {"from": 1e-5, "to": 1e-2, "log": True},
            "model.depth": [32, 64],
            "model.ppm_bins": [None, [1, 2]],
        },
        search=SearchSettings(searcher="random", scheduler="none", metrics=metrics, modes=modes, trials=trials),
    )
    folder = runs / settings.name
    folder.mkdir(parents=True)
    (folder / SEARCH_YAML).write_text(dump(settings))
    random = np.random.default_rng(0)
    for number in range(trials):
        rate, depth = float(10 ** random.uniform(-5, -2)), int(random.choice([32, 64]))
        values = {"optimizer.lr": rate, "model.depth": depth, "model.ppm_bins": [None, [1, 2]][number % 2]}
        floor, speed = 60 + 20 * abs(np.log10(rate) + 3.5), 9000 / depth + number
        failed, name = number == trials - 1, f"t{number:04}"
        with Journal(folder / name) as journal:
            for epoch in range(1, 4 if number % 3 else 10):
                error = floor + 80 * np.exp(-epoch / 2) + random.normal()
                journal.metrics(epoch * 10, {MPJPE: error, SPEED: speed})
        scores = {MPJPE: error, SPEED: speed}
        record = TrialRecord(number, name, "k", values, "stopped early" if number % 3 else "finished", "", {}, epoch)
        ending = {"status": "failed", "reason": "out of memory: <all>"} if failed else {}
        write_trial(folder, replace(record, scores={one: scores[one] for one in metrics}, **ending))
    return settings


def test_the_page_shows_a_search_and_needs_no_network(tmp_path, capsys):
    searched(tmp_path, (MPJPE, SPEED), ("min", "max"))
    report_search(TuneReportSettings("a<b>", tmp_path))
    page = (tmp_path / "a<b>" / "search.html").read_text()
    body = page[page.rindex("</style>") :]
    body = body[body.index("</head>") :]
    for heading in ("Settings and scores", "What matters", "Learning curves", f"{MPJPE} against {SPEED}", "Trials"):
        assert f"<h2>{heading}</h2>" in body
    for kind in ("bar", "scatter"):
        assert f'"type":"{kind}"' in body
    assert "<td>t0011</td><td>failed</td>" in body
    assert "out of memory: &lt;all&gt;" in body
    assert "a&lt;b&gt;" in body
    assert "<b>" not in re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL).split("</h1>")[0]
    assert not re.search(r'(?:src|href)="(?!data:)', body)
    assert "default-src 'none'" in page
    assert "search.html" in capsys.readouterr().out.replace("\n", "")


def test_a_search_by_one_metric_is_held_against_its_speed(tmp_path):
    page = write_page(searched(tmp_path, (MPJPE,), ("min",))).read_text()
    assert f"<h2>{MPJPE} against {SPEED}</h2>" in page


def test_what_decides_is_found(tmp_path):
    from tune.records import read_trials

    searched(tmp_path, (MPJPE, SPEED), ("min", "max"), trials=40)
    records = read_trials(tmp_path / "a<b>")
    shares = importances(records, SPEED)
    assert max(shares, key=shares.__getitem__) == "model.depth"
    assert sum(shares.values()) == pytest.approx(1)
    shares = importances(records, MPJPE)
    assert max(shares, key=shares.__getitem__) == "optimizer.lr"
    assert importances(records[:3], MPJPE) == {}
    same = [replace(record, values=records[0].values) for record in records]
    assert importances(same, MPJPE) == {}


def test_a_search_without_scores_has_no_page(tmp_path):
    settings = searched(tmp_path, (MPJPE,), ("min",), trials=2)
    for number in range(2):
        write_trial(tmp_path / "a<b>", TrialRecord(number, f"t{number:04}", "k", {"optimizer.lr": 1.0}))
    with pytest.raises(InputError, match="no trial with a score yet; 2 were begun"):
        write_page(settings)
