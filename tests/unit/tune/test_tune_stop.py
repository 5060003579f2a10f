"""A search that is asked to stop: what it has until the time limit, and how it says to go on."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from cluster.settings import DataSettings
from tune import search as module
from tune.handover import STOP_S
from tune.search import Search
from tune.settings import SearchSettings, TuneSettings
from tune.space import read_space

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("number", [None, signal.SIGUSR1])
def test_after_a_signal_all_waits_end_before_the_time_limit(
    number: signal.Signals | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []

    def trials(search: Search, _count: int) -> None:
        if number is None:
            search.settings, search.began = stopped_by_hours, -1e9
        else:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
        search.await_trials()

    settings = TuneSettings(runs_dir=tmp_path, data=DataSettings(h36m="x"), space={"optimizer.lr": [1e-3]})
    stopped_by_hours = TuneSettings(
        runs_dir=tmp_path, data=settings.data, space=settings.space, search=SearchSettings(hours=1)
    )
    monkeypatch.setattr("tune.cluster.run_trials", trials)
    monkeypatch.setattr(module, "wait_until_saved", lambda folders, left: waits.append(left) or [])
    delivery = SimpleNamespace(finish=lambda left: waits.append(left) or "")
    monkeypatch.setattr(module, "start_search_delivery", lambda *_: delivery)
    before = signal.getsignal(signal.SIGUSR1)
    Search(settings, read_space(settings.space), tmp_path / "search", Console(), 1).run()
    assert signal.getsignal(signal.SIGUSR1) == before
    said = capsys.readouterr().out
    if number is None:
        assert waits == [STOP_S, 120.0]
        assert f"stopped by search.hours = 1; go on with: pose tune --resume search --runs_dir {tmp_path} --sea" in said
    else:
        assert sum(waits) < STOP_S - 30
        assert waits[1] == 15.0
        assert "SIGUSR1: waiting for the trials to save" in said
        assert f"stopped by SIGUSR1; go on with: pose tune --resume search --runs_dir {tmp_path}" in said
