"""`pose demo` in small, and what it leaves: a score card, pictures, and a finished run in MLflow."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = pytest.mark.integration

WORDS = (
    *("--work=data", "--train.runs_dir=runs", "--studio.frames=2", "--studio.frame_px=128", "--studio.cameras=2"),
    *("--studio.actions=[Directions,Walking]", "--studio.mpii_pictures=8", "--studio.voc_pictures=2"),
    *(
        "--train.epochs=2",
        "--train.validate_every=1",
        "--train.model.width=8",
        "--train.optimizer.milestones=[1]",
        "--train.batch.micro=4",
    ),
)


def demo(folder) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pose", "demo", *WORDS], capture_output=True, text=True, cwd=folder, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_what_people_see(client: "MlflowClient", run: "Run", score: dict[str, Any]) -> None:
    """The score in words, the protocol, the machine's load, tables, and the same samples after each validation."""
    shown = run.data.tags["mlflow.note.content"]
    assert "Synthetic people" in shown
    assert f"| MPJPE | **{score['mpjpe_mm']:.1f} mm** | {score['mean_pose_mpjpe_mm']:.1f} mm |" in shown
    assert f"| shard set | {score['protocol']['shard set']} |" in shown
    assert {f"| {key} |" for key in score["protocol"]} <= set(re.findall(r"\| [^|]+ \|(?= [^|]*\|$)", shown, re.M))
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert 0 < run.data.metrics["system/system_memory_usage_percentage"] <= 100
    names = [Path(found.path).name for found in client.list_artifacts(run.info.run_id, "images")]
    validated = {point.step for point in client.get_metric_history(run.info.run_id, "val/mpjpe_mm")}
    assert len(validated) == 2
    assert {int(name.split("+")[2]) for name in names if name.startswith("val~samples+step+")} == validated
    for name, column in (("per_joint", "joint"), ("per_action", "action")):
        table = client.load_table(run.info.experiment_id, f"tables/score_{name}.json", [run.info.run_id])
        assert dict(zip(table[column], table["mpjpe_mm"], strict=True)) == pytest.approx(score[name], abs=0.01)


def check_logged_model(client: "MlflowClient", run: "Run") -> None:
    """It answers its own example by what its signature says."""
    import mlflow

    (model,) = client.search_logged_models([run.info.experiment_id])
    assert (model.status, model.source_run_id) == ("READY", run.info.run_id)
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    loaded = mlflow.pyfunc.load_model(model.artifact_location)
    example = loaded.input_example
    answer = loaded.predict(example)
    assert len(answer) == len(example) == 1
    assert set(answer.columns) == set(loaded.metadata.signature.outputs.input_names())


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

    import mlflow
    from mlflow.tracking import MlflowClient

    store = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    mlflow.set_tracking_uri(store)  # tables are read from there, whatever the client's own
    client = MlflowClient(store)
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
    check_what_people_see(client, tracked, score)
    check_logged_model(client, tracked)

    demo(tmp_path)
    assert (run / "model.safetensors").read_bytes() == first
    (again,) = client.search_runs([experiment.experiment_id])
    assert again.info.run_id == tracked.info.run_id
