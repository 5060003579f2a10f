"""A run's sources and order: from folders and URLs, in windows, with the end of an epoch as the settings say."""

from dataclasses import replace

import fsspec
import numpy as np
import pytest

from cluster.data import mean_pose_mm, open_data, shard_window
from cluster.preflight import check
from cluster.run_folder import claim
from cluster.settings import BatchSettings, Run
from cluster.settings_data import DataSettings
from poselib.errors import InputError
from shards.loader_settings import CropSettings, LoaderSettings
from shards.manifest import DamagedSample
from shards.storage_settings import StorageSettings

pytestmark = pytest.mark.unit


@pytest.fixture
def run(shard_sets, tmp_path) -> Run:
    data = DataSettings(
        h36m=str(shard_sets["h36m"]),
        mpii=str(shard_sets["mpii"]),
        train_subjects=("S1",),
        val_subjects=("S9",),
        test_subjects=("S11",),
        every_train=1,
        every_val=1,
    )
    loader = LoaderSettings(storage=StorageSettings(cache=tmp_path / "cache"))
    crop = CropSettings(allow_border=True)
    return Run(name="x", data=data, runs_dir=tmp_path, batch=BatchSettings(micro=3), loader=loader, crop=crop)


@pytest.fixture
def by_url(run, shard_sets):
    """The same run, its Human3.6M behind a URL."""
    system = fsspec.filesystem("memory")
    system.put(str(shard_sets["h36m"]) + "/", "/run/h36m/", recursive=True)
    yield replace(run, data=replace(run.data, h36m="memory://run/h36m"))
    system.rm("/run", recursive=True)


def test_a_run_from_a_url_has_the_same_samples_and_mixes_within_windows(run, by_url):
    near, far = open_data(run), open_data(by_url)
    assert far.shard_sets == near.shard_sets
    np.testing.assert_array_equal(far.train[0].rows, near.train[0].rows)
    np.testing.assert_allclose(mean_pose_mm(far.train[0]), mean_pose_mm(near.train[0]))
    assert (near.order.window, far.order.window) == (0, 32)
    assert far.order.shard_sizes[0] == far.train[0].shards.shard_sizes(far.train[0].rows)
    assert sum(far.order.shard_sizes[1]) == len(far.train[1].rows)


def test_the_window_of_the_first_start_stays(run, by_url):
    assert (shard_window(run), shard_window(by_url)) == ("full", 32)
    claimed = claim(by_url, 3, shard_window(by_url))
    assert claimed.data.shard_window == 32
    # Copied to a local disk in the meantime, `auto` would be another order.
    assert claim(by_url, 3, "full").data.shard_window == 32
    with pytest.raises(InputError, match=r"data\.shard_window 32 -> 4"):
        claim(replace(by_url, data=replace(by_url.data, shard_window=4)), 3)
    with pytest.raises(InputError, match=r"batch\.last wrap -> pad"):
        claim(replace(by_url, batch=replace(by_url.batch, last="pad")), 3)


def test_epochs_follow_the_set_that_defines_them(run):
    data = open_data(run)
    sizes = data.order.sizes
    assert data.order.per_epoch == sizes
    mixed = replace(run, data=replace(run.data, mpii_ratio=0.5, epoch_of="mpii"))
    assert open_data(mixed).order.per_epoch == (2 * sizes[1], sizes[1])
    with pytest.raises(ValueError, match="epoch_of mpii needs"):
        replace(run.data, epoch_of="mpii")


def test_an_epoch_without_a_whole_step_is_refused_before_anything_starts(run):
    size = open_data(run).order.epoch_size
    too_large = 3 * size
    wrapped = replace(run, batch=BatchSettings(micro=3, global_=too_large))
    dropped = replace(run, batch=BatchSettings(micro=3, global_=too_large, last="drop"))
    assert open_data(wrapped).order.epoch_places == size
    with pytest.raises(InputError, match=rf"an epoch of {size} samples has no whole batch of {too_large}"):
        check(dropped, 1)


def test_the_mean_pose_passes_over_damage_where_the_run_does(run, monkeypatch):
    source = open_data(run).train[0]
    whole, bad = type(source.shards).read_one, int(source.rows[2])

    def read_one(self, row):
        if row == bad:
            raise DamagedSample("sample 2 is damaged")
        return whole(self, row)

    sound = mean_pose_mm(source)
    monkeypatch.setattr(type(source.shards), "read_one", read_one)
    with pytest.raises(DamagedSample):
        mean_pose_mm(source)
    assert 0 < np.abs(mean_pose_mm(source, "skip") - sound).max() < 100
