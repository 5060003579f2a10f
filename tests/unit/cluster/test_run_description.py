"""What MLflow is told of a run in words, tables and system metrics."""

import json

import pytest

from cluster.tracking.delivery import Batch, Ledger
from cluster.tracking.description import describe_score, describe_training
from cluster.tracking.journal import Journal, read_records
from cluster.tracking.system_metrics import SystemMetrics
from cluster.tracking.tables import write_score_tables

pytestmark = pytest.mark.unit

FIGURES = ("mpjpe_mm", "mpjpe_action_mean_mm", "pa_mpjpe_rigid_mm", "pa_mpjpe_similarity_mm", "pck_150", "auc")


def card() -> dict:
    score = dict.fromkeys(FIGURES, 0.5) | {f"mean_pose_{key}": 0.25 for key in FIGURES}
    score |= {"mpjpe_mm": 51.26, "samples": 7, "synthetic": True, "code_version": "1"}
    score |= {"per_action": {"Sitting": 51.257}, "mean_pose_per_action": {"Sitting": 200.0}}
    score |= {
        "per_action_samples": {"Sitting": 7},
        "per_joint": {"pelvis": 0.0},
        "mean_pose_per_joint": {"pelvis": 0.0},
    }
    return score | {"protocol": {"box": "root2000", "subjects": ["S9", "S11"], "flip test": False, "odd": "a|b\nc"}}


def test_the_description_holds_score_and_protocol():
    lines = describe_score(card()).splitlines()
    assert lines[0].startswith("*Synthetic people")
    assert "| MPJPE | **51.3 mm** | 0.2 mm |" in lines
    assert "| 3D PCK at 150 mm | **50.0 %** | 25.0 % |" in lines
    assert "| subjects | S9, S11 |" in lines
    assert "| flip test | no |" in lines
    assert r"| odd | a\|b c |" in lines


def test_a_training_is_described_before_its_score():
    from cluster.config import flatten
    from cluster.settings import Run
    from cluster.settings_data import DataSettings

    text = describe_training(flatten(Run("one", DataSettings(h36m="h36m"))), synthetic=False)
    assert "not scored yet" in text
    assert "Synthetic" not in text


def test_a_table_is_named_once_however_often_it_is_written(tmp_path):
    with Journal(tmp_path) as journal:
        for _ in range(2):
            for place in write_score_tables(tmp_path, "score", card()):
                journal.table(place)
        with pytest.raises(ValueError, match="lies outside"):
            journal.table("../x.json")
    ledger, batch = Ledger(), Batch()
    for record, _ in read_records(tmp_path):
        ledger.admit(record, batch)
    places = ["tables/score_per_joint.json", "tables/score_per_action.json"]
    assert [one["path"] for one in json.loads(batch.tags["mlflow.loggedArtifacts"])] == places
    assert json.loads((tmp_path / places[1]).read_text())["data"] == [["Sitting", 7, 51.26, 200.0]]
    assert set(batch.artifacts) == {(place, "tables") for place in places}


def test_system_metrics_come_at_their_own_pace():
    metrics = SystemMetrics(every_s=3600.0)
    first = metrics.due()
    assert 0 < first["system/system_memory_usage_percentage"] <= 100
    assert first["system/cpu_utilization_percentage"] >= 0
    assert metrics.due() == {}
