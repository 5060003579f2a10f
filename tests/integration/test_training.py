"""Training as users run it: `pose train` on two ranks, killed, resumed, repeated, scored."""

import fcntl
import hashlib
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.integration

SMALL = """
name: small
epochs: 30
validate_every: 30
log_every: 1
data: {{h36m: {h36m}, mpii: {mpii}, every_train: 1, every_val: 1, every_test: 1,
  train_subjects: [S1], val_subjects: [S1], test_subjects: [S9]}}
model: {{backbone: resnet18, width: 8, crop_width: 64, crop_height: 64, depth: 8, ppm_bins: [1, 2], ppm_channels: 16,
  decoder_channels: 16, decoder_layers: 1}}
batch: {{micro: 4}}
optimizer: {{lr: 1e-3}}
engine: {{ranks: 2, device: cpu, timeout_s: 60}}
tracking: {{enabled: false}}
"""


@pytest.fixture(scope="module")
def config(shard_sets, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(SMALL.format(**shard_sets))
    return path


def command(config: Path, runs: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "pose", "train", "--config", str(config), "--runs_dir", str(runs), *words]


def train(config: Path, runs: Path, *words: str, expect: int = 0) -> str:
    done = subprocess.run(command(config, runs, *words), capture_output=True, text=True, timeout=280)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Path:
    """A run of 66 steps on two ranks. Read only."""
    runs = tmp_path_factory.mktemp("runs")
    train(config, runs, "--epochs", "12", "--checkpoint.every_steps", "7", "--tracking.enabled", "true")
    return runs / "small"


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    """The same run, to be spoilt."""
    shutil.copytree(trained, tmp_path / "small")
    return tmp_path / "small"


def losses(folder: Path, name: str = "train/loss") -> dict[int, float]:
    """The effective loss of each step: what a rewind declared void is gone."""
    from cluster.tracking.journal import curve, read_metrics

    return dict(zip(*curve(read_metrics(folder), name), strict=True))


def validated(folder: Path) -> dict[int, float]:
    """The score of each validation."""
    return losses(folder, "val/mpjpe_mm")


def test_the_same_seed_gives_the_same_losses(config, trained, tmp_path):
    train(config, tmp_path, "--epochs", "4")
    before, after = losses(trained), losses(tmp_path / "small")
    assert [before[step] for step in range(1, 21)] == [after[step] for step in range(1, 21)]


def test_gradient_accumulation_takes_the_place_of_ranks(config, trained, tmp_path):
    train(config, tmp_path, "--epochs", "2", "--batch.global", "8", "--engine.ranks", "1")
    two, one = losses(trained), losses(tmp_path / "small")
    # Sums over two micro-batches in another order: equal but for rounding, which training magnifies slowly.
    assert [one[step] for step in range(1, 11)] == pytest.approx([two[step] for step in range(1, 11)], rel=1e-3)


def test_a_killed_run_goes_on_as_if_it_had_not_been(config, trained, tmp_path):
    words = ("--epochs", "12", "--checkpoint.every_steps", "7")
    whole = losses(trained)
    when = random.randint(9, max(whole) - 3)
    journal = tmp_path / "small" / "metrics.jsonl"
    process = subprocess.Popen(command(config, tmp_path, *words), stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not (journal.is_file() and f'"step": {when},' in journal.read_text()):
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shown = train(config, tmp_path, *words)
    assert int(re.search(r"resuming after step (\d+)", shown)[1]) >= 7
    assert losses(tmp_path / "small") == whole


def test_a_signal_stops_at_a_step_and_leaves_a_checkpoint(config, tmp_path):
    process = subprocess.Popen(command(config, tmp_path), stdout=subprocess.PIPE, text=True, start_new_session=True)
    journal = tmp_path / "small" / "metrics.jsonl"
    while not (journal.is_file() and '"step": 3,' in journal.read_text()):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 0, shown
    assert "stopped by SIGTERM; run the same command again" in shown
    stopped = max(losses(tmp_path / "small"))
    assert (tmp_path / "small" / "checkpoints" / f"step-{stopped:08d}" / "complete.json").is_file()


def test_a_validation_that_a_stop_has_put_off_comes_first_at_the_next_start(config, tmp_path):
    # Every step ends an epoch, so that there is always a validation to put off.
    words = (
        *("--data.mpii=null", "--data.every_train=2", "--data.every_val=2", "--batch.global=16"),
        *("--validate_every=1", "--epochs=6", "--engine.ranks=1", "--engine.threads=1"),
    )
    whole = tmp_path / "whole"
    train(config, whole, *words)
    process = subprocess.Popen(command(config, tmp_path, *words), stdout=subprocess.PIPE, text=True)
    folder = tmp_path / "small"
    while not (folder / "metrics.jsonl").is_file() or 2 not in validated(folder):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    stopped = max(losses(folder))
    assert 2 < stopped < 6
    assert list(validated(folder)) == list(range(1, stopped))
    train(config, tmp_path, *words)
    assert list(validated(folder)) == list(range(1, 7))
    assert validated(folder) == validated(whole / "small")
    mine, expected = (load_file(place / "model.safetensors") for place in (folder, whole / "small"))
    assert all((mine[name] == value).all() for name, value in expected.items())


def test_the_last_checkpoint_comes_after_the_model_files(trained):
    """Whoever is killed in between resumes before its last step, and makes them."""
    last = max((trained / "checkpoints").iterdir()) / "complete.json"
    for name in ("model.safetensors", "last.safetensors"):
        assert (trained / name).stat().st_mtime_ns < last.stat().st_mtime_ns


def test_a_run_has_one_set_of_ranks_and_they_end_with_their_launcher(config, tmp_path):
    words = ("--epochs", "5000")
    first = subprocess.Popen(command(config, tmp_path, *words), stdout=subprocess.DEVNULL, start_new_session=True)
    folder = tmp_path / "small"
    while not ((folder / "metrics.jsonl").is_file() and '"step": 3,' in (folder / "metrics.jsonl").read_text()):
        time.sleep(0.02)
        assert first.poll() is None
    shown = train(config, tmp_path, *words, expect=1)
    assert f"{folder} is being trained by another process" in shown
    assert "Traceback" not in shown
    first.kill()
    first.wait()
    with (folder / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # returns once rank 0 has ended
    assert (folder / "checkpoints" / f"step-{max(losses(folder)):08d}" / "complete.json").is_file()


@pytest.mark.drill
def test_sixteen_samples_are_learned_to_under_25_mm(config, tmp_path):
    words = (
        *("--data.mpii=null", "--data.every_train=2", "--data.every_val=2", "--epochs=400", "--validate_every=400"),
        *("--log_every=50", "--augment.flip=0", "--augment.color=0", "--batch.micro=8", "--optimizer.lr=2e-3"),
        *("--optimizer.milestones=[250,340]", "--optimizer.gamma=0.2"),
        *("--model.width=16", "--model.decoder_channels=32"),
    )
    shown = train(config, tmp_path, *words)
    assert "training for 400 steps of 16 on 16 h36m samples" in shown
    assert float(re.search(r"validation MPJPE ([\d.]+) mm", shown)[1]) < 25


def test_held_out_people_are_scored(copied):
    pose_eval = [sys.executable, "-m", "pose", "eval", str(copied), "--flip_test", "true"]
    done = subprocess.run(pose_eval, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    score = json.loads((copied / "score_flip.json").read_text())
    for name in ("mpjpe_mm", "pa_mpjpe_rigid_mm", "pa_mpjpe_similarity_mm", "mean_pose_mpjpe_mm"):
        assert 0 < score[name] < 2000
    assert score["pa_mpjpe_similarity_mm"] <= score["pa_mpjpe_rigid_mm"] + 1e-6
    assert score["protocol"]["subjects"] == ["S9"]
    assert score["protocol"]["flip test"] is True
    assert score["synthetic"] is True


class TestBadInput:
    """One clear line, an exit code, nothing lost."""

    def files(self, runs: Path) -> list[Path]:
        """What stands there, but for the delivery's log and copies of code that was edited meanwhile."""
        return sorted(path for path in runs.rglob("*") if path.name != "delivery.log" and "code" not in path.parts)

    def refused(self, config, runs, *words) -> str:
        before = self.files(runs)
        shown = train(config, runs, "--epochs", "12", "--engine.ranks", "1", *words, expect=1)
        lines = [line for line in shown.splitlines() if line.startswith("pose train:")]
        assert "Traceback" not in shown
        assert len(lines) == 1
        assert self.files(runs) == before
        return lines[0]

    def test_a_run_with_other_settings_is_refused(self, config, copied):
        assert "model.depth 8 -> 4" in self.refused(config, copied.parent, "--model.depth", "4")

    def test_another_architecture_is_refused(self, config, copied):
        settings = copied / "run.yaml"
        settings.write_text(settings.read_text().replace("depth: 8", "depth: 4"))
        assert "of another architecture" in self.refused(config, copied.parent, "--model.depth", "4")

    def test_checkpoints_that_are_all_damaged_are_named(self, config, copied):
        for folder in (copied / "checkpoints").iterdir():
            file = folder / "state.safetensors"
            file.write_bytes(file.read_bytes()[:-1])
        assert "no checkpoint is whole" in self.refused(config, copied.parent)

    def test_a_damaged_checkpoint_is_passed_over(self, config, copied):
        older, newest = sorted((copied / "checkpoints").iterdir())
        file = newest / "state.safetensors"
        file.write_bytes(bytes(reversed(file.read_bytes())))
        shown = train(config, copied.parent, "--epochs", "12", "--engine.ranks", "1")
        assert f"{newest}: {file.name} is damaged; passed over" in shown
        assert f"resuming after step {int(older.name[5:])} of" in shown

    def test_a_checkpoint_with_a_payload_is_refused_and_not_run(self, config, copied, tmp_path):
        class Payload:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "owned"),)

        newest = max((copied / "checkpoints").iterdir())
        file = newest / "state.safetensors"
        file.write_bytes(pickle.dumps({"module": Payload()}))
        record = json.loads((newest / "complete.json").read_text())
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        record["files"] = {file.name: {"bytes": file.stat().st_size, "sha256": digest}}
        (newest / "complete.json").write_text(json.dumps(record))
        assert "is refused" in self.refused(config, copied.parent)
        assert not (tmp_path / "owned").exists()

    def test_a_missing_file_of_a_set_is_named(self, config, shard_sets, tmp_path):
        copy = tmp_path / "set"
        shutil.copytree(shard_sets["h36m"], copy)
        gone = next(copy.rglob("*.tar"))
        gone.unlink()
        assert gone.name in self.refused(config, tmp_path, "--data.h36m", str(copy))
        assert not (tmp_path / "small").exists()

    def test_other_shards_under_the_same_path_are_refused(self, config, copied):
        from cluster.config import load
        from cluster.settings import Run

        run = load(Run, copied / "run.yaml")
        swapped = copied.parent / "set"
        shutil.copytree(run.data.h36m, swapped)
        manifest = swapped / "manifest.json"
        manifest.write_text(re.sub(r'"set_hash": "\w{4}', '"set_hash": "0000', manifest.read_text()))
        settings = copied / "run.yaml"
        settings.write_text(settings.read_text().replace(str(run.data.h36m), str(swapped)))
        assert "on other shards" in self.refused(config, copied.parent, "--data.h36m", str(swapped))

    @pytest.mark.drill
    @pytest.mark.parametrize(("part", "file"), [(2, r"step-\d{8}"), (8, r"\w+\.safetensors")])
    def test_a_full_disk_leaves_the_previous_checkpoint(self, config, copied, part, file):
        previous = max((copied / "checkpoints").iterdir())
        largest = max(path.stat().st_size for path in previous.rglob("*") if path.is_file())

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest // part, largest // part))

        words = ("--epochs", "13")
        done = subprocess.run(
            command(config, copied.parent, *words), capture_output=True, text=True, timeout=200, preexec_fn=limit
        )
        assert done.returncode == 1, done.stdout + done.stderr
        assert len(re.findall(rf"small/(?:checkpoints/)?{file} could not be written: ", done.stderr)) == 1
        assert "could not be written" not in done.stderr.replace(" could not be written: ", "", 1)
        assert "Traceback" not in done.stderr
        shown = train(config, copied.parent, *words)
        assert f"resuming after step {int(previous.name[5:])} of" in shown
