"""`pose submit train --dry-run`: the numbers of the run, in words, are those that training would use."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import pose
from cluster.config import dump, load, parse
from cluster.data import open_data
from cluster.endings import NeverAgain
from cluster.plan import make_plan
from cluster.schedule import Schedule
from cluster.settings import Run
from cluster.settings_submit import SubmitTrainSettings
from cluster.submit_train import write_specs
from cluster.train_task import TrainTask, train_rank_of_job
from poselib.errors import InputError

pytestmark = pytest.mark.unit

TINY = """
name: tiny
epochs: 3
data: {{h36m: {h36m}, mpii: {mpii}, every_train: 1, every_val: 1, every_test: 1,
  train_subjects: [S1], val_subjects: [S1], test_subjects: [S9]}}
model: {{backbone: resnet18, width: 8, crop_width: 64, crop_height: 64, depth: 4, ppm_bins: [1, 2], ppm_channels: 16,
  decoder_channels: 16, decoder_layers: 1}}
batch: {{micro: 2, global: 32}}
optimizer: {{lr: 1e-4, lr_scale: sqrt, reference_batch: 8, warmup_steps: 5}}
tracking: {{enabled: false}}
"""


@pytest.fixture
def config(shard_sets, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.format(**shard_sets))
    return path


def dry_run(capsys, config: Path, *words: str) -> str:
    code = pose.main(["submit", "train", "--config", str(config), "--dry-run", *words])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return shown.out


def test_it_prints_the_script_and_what_training_will_do(config, capsys):
    shown = dry_run(capsys, config, "--job.nodes", "2", "--job.gpus", "4", "--seeds", "[0,1,2]")
    size = open_data(load(Run, config)).order.epoch_places
    said = dict(re.findall(r"^([a-z ]+?)  +(.+)$", shown, re.MULTILINE))
    assert said["world"] == "8 = 2 nodes x 4 ranks"
    assert (said["micro batch"], said["global batch"], said["accumulation"]) == ("2", "32", "2")
    assert said["learning rate"] == "0.0002 (sqrt scaling of 0.0001 at 8, after 5 steps of warm-up)"
    assert said["steps per epoch"] == f"{size / 32:g} ({size} samples)"
    assert said["steps"] == f"{-(-3 * size // 32)} in 3 epochs"
    for line in ("--array=0-2%3", "--nodes=2", "--gpus-per-node=4", "--ntasks-per-node=4", "--signal=USR1@120"):
        assert f"#SBATCH {line}\n" in shown
    assert [path.name for path in Path().iterdir()] == ["tiny.yaml"], "a dry run left something behind"


def test_the_plan_is_the_schedule_of_the_run(config):
    run = load(Run, config)
    plan, data = make_plan(run, 4), open_data(run)
    schedule = Schedule(run.optimizer, data.order.epoch_places, 32, 3, 1)
    assert (plan.steps, plan.accumulation) == (schedule.steps, 4)
    assert plan.lr == schedule.lr(run.optimizer.warmup_steps)
    assert plan.lr > schedule.lr(0)


def test_an_open_batch_is_that_of_the_first_start(config):
    run = replace(load(Run, config), batch=replace(load(Run, config).batch, global_=0))
    assert (make_plan(run, 4).global_batch, make_plan(run, 4).accumulation) == (8, 1)
    run.folder.mkdir(parents=True)
    (run.folder / "run.yaml").write_text(dump(replace(run, batch=replace(run.batch, global_=16))))
    assert (make_plan(run, 4).global_batch, make_plan(run, 4).accumulation) == (16, 2)


def test_a_world_that_does_not_fit_is_refused_before_anything_is_submitted(config, capsys):
    assert pose.main(["submit", "train", "--config", str(config), "--job.nodes", "3", "--dry-run"]) == 1
    assert "3 ranks cannot share the 16 micro-batches of a step; worlds that fit: [1, 2" in capsys.readouterr().err


def test_each_seed_is_a_run_of_its_own(config):
    settings = load(SubmitTrainSettings, config)
    assert [run.name for run in settings.runs()] == ["tiny"]
    runs = replace(settings, seeds=(3, 7)).runs()
    assert [(run.name, run.seed, type(run)) for run in runs] == [("tiny-seed3", 3, Run), ("tiny-seed7", 7, Run)]
    with pytest.raises(ValueError, match=r"seeds must be different numbers of at least 0, not \[1, 1\]"):
        replace(settings, seeds=(1, 1))


def test_without_slurm_it_is_one_clear_line(config, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert pose.main(["submit", "train", "--config", str(config)]) == 1
    assert "there is no sbatch on this machine; take a login node, or local" in capsys.readouterr().err


def test_an_evaluation_needs_a_run(tmp_path, capsys):
    assert pose.main(["submit", "eval", str(tmp_path)]) == 1
    assert "is no run: it holds no run.yaml" in capsys.readouterr().err
    assert pose.main(["submit", "eval", str(tmp_path), "--job.ranks", "2"]) == 2


def test_damaged_settings_are_refused_with_their_name(config):
    with pytest.raises(InputError, match="nodes must be at least 1"):
        parse(SubmitTrainSettings, ["--config", str(config), "--job.nodes", "0"])


def refuse() -> None:
    raise NeverAgain("a newer start is at work")


def crash() -> None:
    raise SystemExit(75)


@pytest.mark.parametrize(("ending", "code"), [(lambda: None, 0), (refuse, 76), (crash, 75)])
def test_a_rank_tells_the_batch_script_how_it_ended(config, tmp_path, monkeypatch, capsys, ending, code):
    seen = []
    monkeypatch.setattr("cluster.train_task.train", lambda run: (seen.append(run), ending()))
    write_specs(tmp_path / "specs", [load(Run, config)])
    with pytest.raises(SystemExit) as ended:  # which submitit lets through
        train_rank_of_job(TrainTask(tmp_path / "specs" / "0.yaml"))
    assert (ended.value.code, seen) == (code, [load(Run, config)])
    assert capsys.readouterr().err == ("pose train: a newer start is at work\n" if code == 76 else "")
