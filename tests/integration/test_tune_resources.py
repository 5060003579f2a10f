"""A search of whose trials none could start says so at once, by what a real Ray counts."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

CHECK = """
import json, os, sys
from dataclasses import replace
from tune import cluster
from tune.resources import check_resources
from tune.settings import SearchSettings, TuneSettings
from cluster.settings import EngineSettings
from poselib.errors import InputError
os.environ |= cluster.environment()
import ray
ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
nodes, told = [node["Resources"] for node in ray.nodes() if node["Alive"]], []
ray.shutdown()
for search, device in json.loads(sys.argv[1]):
    wanted, engine = SearchSettings(**search), EngineSettings(device=device)
    settings = TuneSettings(resume="x", name="wide", search=wanted, engine=engine)
    try:
        check_resources(settings, nodes)
        told.append("")
    except InputError as error:
        told.append(str(error))
print(json.dumps(told))
"""
CASES = {
    "fits": ({"gpus": 2, "cpus": 4}, "auto", ""),
    "shares": ({"gpus": 0.5, "cpus": 0.5}, "auto", ""),
    "no GPU asked for": ({"gpus": 0}, "auto", "search.gpus is 0, but the cluster has 2 GPUs: all trials would"),
    "on the CPU": ({"gpus": 0}, "cpu", ""),
    "too many GPUs": ({"gpus": 3}, "cuda", "a trial takes 3 GPUs and 1 core, the cluster has 1 node with 4 cores, 2"),
    "too many cores": ({"gpus": 1, "cpus": 4.5}, "auto", "a trial takes 1 GPU and 4.5 cores, the cluster has 1 node"),
    "too many nodes": ({"gpus": 1, "nodes": 2}, "auto", "a trial takes 1 GPU and 1 core on each of 2 nodes, the"),
}


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """What each case is told by a Ray with two GPUs on 4 cores."""
    words = [sys.executable, "-c", CHECK, json.dumps([(search, device) for search, device, _ in CASES.values()])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(words, capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_what_a_trial_takes_is_held_against_the_cluster(case, told):
    expected = CASES[case][2]
    assert told[case].startswith(expected)
    assert bool(told[case]) == bool(expected)
    assert not expected or "`pose tune --resume wide --search." in told[case]


def test_a_search_without_the_gpus_that_it_asks_for_ends_in_one_line(shard_sets, tmp_path):
    (tmp_path / "wide.yaml").write_text(
        "name: wide\nepochs: 1\ntracking: {enabled: false}\nengine: {ranks: 1}\nbatch: {micro: 4}\n"
        "model: {backbone: resnet10, width: 8, crop_width: 64, crop_height: 64, depth: 8, ppm_bins: [1]}\n"
        f"data: {{h36m: {shard_sets['h36m']}, every_train: 1, every_val: 1,"
        " train_subjects: [S1], val_subjects: [S1], test_subjects: [S9]}\n"
        "space: {optimizer.lr: [1e-3, 1e-4]}\nsearch: {gpus: 64}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pose", "tune", "--config", tmp_path / "wide.yaml", "--runs_dir", tmp_path / "runs"],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "pose tune: a trial takes 64 GPUs and 1 core, the cluster has 1 node with " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
