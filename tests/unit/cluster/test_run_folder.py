"""A run's folder belongs to one run."""

from dataclasses import replace

import pytest

from cluster.run_folder import claim
from cluster.settings import BatchSettings, EngineSettings, OptimizerSettings, Run
from cluster.settings_data import DataSettings
from poselib.errors import InputError

pytestmark = pytest.mark.unit


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(name="x", data=DataSettings(h36m=tmp_path / "set"), runs_dir=tmp_path, batch=BatchSettings(micro=8))


def test_the_global_batch_of_the_first_start_stays(run):
    assert claim(run, 16).batch.global_ == 16
    assert claim(run, 64).batch.global_ == 16


def test_other_ranks_or_devices_may_resume(run):
    claim(run, 16)
    assert claim(replace(run, engine=EngineSettings(ranks=4)), 32).engine.ranks == 4


def test_another_run_is_refused_with_what_differs(run):
    claim(run, 16)
    with pytest.raises(InputError, match=r"optimizer.lr 0.0001 -> 0.5"):
        claim(replace(run, optimizer=OptimizerSettings(lr=0.5)), 16)


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/x cannot be written"):
        claim(replace(run, runs_dir=tmp_path / "file"), 16)
