"""`pose tune best`: the settings in force at the best score, and a word where they were changed later."""

from pathlib import Path

import pytest

from cluster.config import construct, dump
from cluster.settings import DataSettings, Run
from tune.best import print_best
from tune.records import SEARCH_YAML, TrialRecord, write_trial
from tune.settings import BestSettings, SearchSettings, TuneSettings

pytestmark = pytest.mark.unit

METRIC, RATE = "val/mpjpe_mm", "optimizer.lr"


@pytest.mark.parametrize(("best_values", "changed"), [({}, False), ({RATE: 1e-3}, False), ({RATE: 2e-3}, True)])
def test_values_at_the_best_score_are_said_to_be_changed_only_where_they_were(
    best_values: dict[str, float], changed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {RATE: {"from": 1e-4, "to": 1e-2}}
    search = SearchSettings(scheduler="pbt", perturb_epochs=1)
    settings = TuneSettings(runs_dir=tmp_path, data=DataSettings(h36m="x"), space=space, search=search)
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / SEARCH_YAML).write_text(dump(settings))
    record = TrialRecord(0, "t0000", "k", {RATE: 1e-3}, "finished", scores={METRIC: 50.0}, best_values=best_values)
    write_trial(tmp_path / "search", record)
    print_best(BestSettings("search", tmp_path))
    shown = capsys.readouterr().out
    assert ("changed later; these were in force at the best score" in shown) is changed
    assert construct(Run, shown, "best").optimizer.lr == record.scored_values[RATE]
