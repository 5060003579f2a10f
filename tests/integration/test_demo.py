"""`pose demo` in small, and what it leaves: a score card, pictures, and a finished run in MLflow."""

import json
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

WORDS = (
    *("--work=data", "--train.runs_dir=runs", "--studio.frames=2", "--studio.frame_px=128", "--studio.cameras=2"),
    *("--studio.actions=[Directions,Walking]", "--studio.mpii_pictures=8", "--studio.voc_pictures=2"),
    *("--train.epochs=2", "--train.model.width=8", "--train.optimizer.milestones=[1]", "--train.batch.micro=4"),
)


def demo(folder) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pose", "demo", *WORDS], capture_output=True, text=True, cwd=folder, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_goes_the_whole_way_and_twice_is_quick(tmp_path):
    shown = demo(tmp_path)
    assert "next: pose ui" in shown.splitlines()[-1]
    run = tmp_path / "runs" / "demo"
    score = json.loads((run / "score.json").read_text())
    assert score["synthetic"] is True
    assert score["samples"] == 2 * 2 * 2 * 2
    assert score["protocol"]["subjects"] == ["S9", "S11"]
    page = (run / "score.html").read_text()
    assert "data:image" in page
    assert "://" not in re.sub(r"base64,[\w+/=]*", "", page)
    first = (run / "model.safetensors").read_bytes()

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("posecluster")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["model.width"] == "8"
    assert tracked.data.metrics["test/mpjpe_mm"] == pytest.approx(score["mpjpe_mm"])
    assert {"train/loss", "val/mpjpe_mm"} <= tracked.data.metrics.keys()
    assert {a.path for a in client.list_artifacts(tracked.info.run_id)} >= {
        "run.yaml",
        "score.json",
        "score.html",
        "score.jpg",
    }
    assert tracked.data.tags["posecluster.checkpoints"].endswith("checkpoints")

    demo(tmp_path)
    assert (run / "model.safetensors").read_bytes() == first
    (again,) = client.search_runs([experiment.experiment_id])
    assert again.info.run_id == tracked.info.run_id
