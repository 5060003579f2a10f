import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from cluster.samples import digest, leaderboard_csv, read_samples
from cluster.scorecard import (
    FIGURES,
    Evaluated,
    calibration_line,
    print_comparison,
    print_score,
    score,
    write_score,
)
from cluster.scorepage import Picture
from poselib.errors import InputError
from poselib.skeleton import H36M_JOINTS
from shards.sample import Names

pytestmark = pytest.mark.unit

HOSTILE = "<script>[bold]alert('x')</script>"


@pytest.fixture
def evaluated() -> Evaluated:
    """Two poses of `Walking` that are 30 mm off and one of `Eating` that is 90 mm off, in every joint but the root."""
    rng = np.random.default_rng(0)
    true_mm = rng.normal(0, 300, (3, 17, 3)).astype(np.float32)
    true_mm[:, 0] = 0
    predicted_mm = true_mm.copy()
    predicted_mm[:2, 1:, 0] += 30
    predicted_mm[2, 1:, 2] += 90
    names = [Names("h36m", f"frame{i}.jpg", "S9", action) for i, action in enumerate(("Walking", "Walking", "Eating"))]
    crop = rng.integers(0, 255, (64, 48, 3), dtype=np.uint8)
    joints_px = rng.uniform(0, 48, (17, 2)).astype(np.float32)
    hostile = replace(names[0], action=HOSTILE)
    picture = Picture(crop, joints_px, joints_px + 1, predicted_mm[2], true_mm[2], hostile)
    protocol = {"box": "root2000", "subjects": ["S9", "S11"], "flip_test": False, "note": HOSTILE}
    true_px = rng.uniform(0, 90, (3, 17, 2)).astype(np.float32)
    spread_mm = np.repeat(np.float32([[10], [30], [90]]), 17, axis=1)
    keys, rows = ["a", "b", "c"], np.array([4, 5, 9])
    return Evaluated(
        predicted_mm,
        true_mm,
        true_px + 1,
        true_px,
        spread_mm,
        keys,
        rows,
        names,
        true_mm.mean(0),
        [picture],
        protocol,
    )


def test_figures_of_known_errors(evaluated: Evaluated) -> None:
    result = score(evaluated)
    moved = 16 / 17  # the root never errs
    assert result["samples"] == 3
    assert result["mpjpe_mm"] == pytest.approx((30 + 30 + 90) / 3 * moved, rel=1e-5)
    assert result["mpjpe_action_mean_mm"] == pytest.approx((30 + 90) / 2 * moved, rel=1e-5)
    assert result["median_mm"] == pytest.approx(30, rel=1e-5)
    assert result["per_action"] == pytest.approx({"Eating": 90 * moved, "Walking": 30 * moved}, rel=1e-5)
    assert result["per_action_samples"] == {"Eating": 1, "Walking": 2}
    assert list(result["per_joint"]) == list(H36M_JOINTS)
    assert result["per_joint"]["pelvis"] == 0
    assert result["per_joint"]["head_top"] == pytest.approx(50, rel=1e-5)
    assert result["pck_150"] == 1
    assert 0 < result["auc"] < 1
    assert result["pa_mpjpe_rigid_mm"] < result["mpjpe_mm"]
    assert result["synthetic"] is False
    assert result["protocol"] == evaluated.protocol


def test_the_two_kinds_of_alignment_are_told_apart(evaluated: Evaluated) -> None:
    turned_mm = (evaluated.true_mm @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])).astype(np.float32)
    turned = score(replace(evaluated, predicted_mm=turned_mm))
    larger = score(replace(evaluated, predicted_mm=1.5 * turned_mm))
    assert turned["mpjpe_mm"] > 100
    assert turned["pa_mpjpe_rigid_mm"] == pytest.approx(0, abs=1e-3)
    assert larger["pa_mpjpe_rigid_mm"] > 100
    assert larger["pa_mpjpe_similarity_mm"] == pytest.approx(0, abs=1e-3)


def test_the_baseline_is_scored_as_a_model_that_says_the_mean_pose(evaluated: Evaluated) -> None:
    mean_mm = np.broadcast_to(evaluated.mean_pose_mm, evaluated.true_mm.shape)
    as_model = score(replace(evaluated, predicted_mm=mean_mm))
    result = score(evaluated)
    for key in [*FIGURES, "per_joint", "per_action"]:
        assert result[f"mean_pose_{key}"] == as_model[key]


def test_a_better_prediction_has_a_better_score(evaluated: Evaluated) -> None:
    closer_mm = (evaluated.predicted_mm + evaluated.true_mm) / 2
    worse, better = score(evaluated), score(replace(evaluated, predicted_mm=closer_mm))
    assert better["auc"] > worse["auc"]
    for key in FIGURES:
        if key.endswith("_mm"):
            assert better[key] == pytest.approx(worse[key] / 2, rel=0.2)


def test_written_files_hold_everything_themselves(evaluated: Evaluated, tmp_path: Path) -> None:
    result = write_score(tmp_path / "run", evaluated)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("score.html", "score.jpg", "score.json", "score.npz", "score_calibration.png"),
    ]
    assert json.loads((tmp_path / "run" / "score.json").read_text()) == result
    page = (tmp_path / "run" / "score.html").read_text()
    assert set(re.findall(r'src="([^:"]*:[^;"]*)', page)) == {"data:image/jpeg", "data:image/png"}
    assert not re.search(r"https?://|//\w|url\(|@import|href=", re.sub(r"base64,[\w+/=]*", "", page))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2  # the action of the picture, and the note of the protocol
    for text in ("47.1", "28.2", "84.7", "S9, S11", "head top", "prefers-color-scheme: dark", "frame0.jpg"):
        assert text in page
    shapes = [
        cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR).shape
        for data in re.findall(r"jpeg;base64,([\w+/=]*)", page)
    ]
    assert shapes == [(256, 192, 3)] * 3 + [(256, 256, 3)]  # small crops are enlarged


def test_synthetic_people_are_named_as_such(evaluated: Evaluated, tmp_path: Path) -> None:
    real = io.StringIO()
    print_score(write_score(tmp_path, evaluated), Console(file=real, width=100))
    assert "Synthetic" not in real.getvalue() + (tmp_path / "score.html").read_text()
    studio = io.StringIO()
    marked = replace(evaluated, protocol=evaluated.protocol | {"synthetic": True}, pictures=[])
    print_score(write_score(tmp_path, marked, "studio"), Console(file=studio, width=100))
    assert "Synthetic" in studio.getvalue()
    assert "Synthetic" in (tmp_path / "studio.html").read_text()
    assert not (tmp_path / "studio.jpg").exists()


def test_the_tables_show_every_figure(evaluated: Evaluated) -> None:
    out = io.StringIO()
    print_score(score(evaluated), Console(file=out, width=120))
    for text in (*FIGURES.values(), *H36M_JOINTS, "Walking", "47.1 mm", "100.0 %", "root2000", "S9, S11", HOSTILE):
        assert text in out.getvalue()


def test_what_cannot_be_scored_is_told_and_nothing_is_written(evaluated: Evaluated, tmp_path: Path) -> None:
    broken_mm = evaluated.predicted_mm.copy()
    broken_mm[1, 5] = np.nan
    with pytest.raises(InputError, match=r"1 of 3 predictions are not finite, first that of frame1\.jpg"):
        write_score(tmp_path, replace(evaluated, predicted_mm=broken_mm))
    none = {name: getattr(evaluated, name)[:0] for name in ("predicted_mm", "true_mm", "predicted_px", "true_px")}
    none |= {"spread_mm": evaluated.spread_mm[:0], "rows": evaluated.rows[:0]}
    with pytest.raises(InputError, match="no sample with a 3D truth"):
        write_score(tmp_path, replace(evaluated, **none, names=[], keys=[]))
    with pytest.raises(ValueError, match="true_mm must be of shape"):
        write_score(tmp_path, replace(evaluated, true_mm=evaluated.true_mm[:, :16]))
    assert list(tmp_path.iterdir()) == []


def test_spreads_are_held_against_errors(evaluated: Evaluated, tmp_path: Path) -> None:
    result = write_score(tmp_path, evaluated)
    # 16 joints of 10, 30 and 90 mm predicted, of 30, 30 and 90 mm true: ten bins of 5 and 4, three of them off.
    predicted, observed, joints = (
        [row[key] for row in result["calibration_table"]] for key in ("predicted_mm", "observed_mm", "joints")
    )
    assert sum(joints) == 48
    assert (predicted[0], predicted[-1]) == (pytest.approx(10), pytest.approx(90))
    assert (observed[0], observed[-1]) == (pytest.approx(30, rel=1e-5), pytest.approx(90, rel=1e-5))
    off = [abs(o - p) / p for p, o in zip(predicted, observed, strict=True)]
    assert result["calibration_error"] == pytest.approx(np.mean(off))
    assert result["calibration_ratio"] == pytest.approx(np.sqrt(9900 / 9100), rel=1e-4)
    assert result["calibration_rank_correlation"] > 0.7
    assert calibration_line(result) in " ".join(shown(result).split())
    chart = cv2.imread(str(tmp_path / "score_calibration.png"))
    assert chart.shape == (480, 480, 3)


def test_heads_without_heat_maps_have_no_calibration(evaluated: Evaluated, tmp_path: Path) -> None:
    result = write_score(tmp_path, replace(evaluated, spread_mm=np.full_like(evaluated.spread_mm, np.nan)))
    assert result["calibration_error"] is None
    assert result["calibration_table"] == []
    assert not (tmp_path / "score_calibration.png").exists()
    assert "alibration" not in shown(result)
    assert "Calibration" not in (tmp_path / "score.html").read_text()


def test_samples_come_back_and_belong_to_their_card(evaluated: Evaluated, tmp_path: Path) -> None:
    result, card = write_score(tmp_path, evaluated), tmp_path / "score.json"
    samples = read_samples(card, result)
    assert samples.keys.tolist() == ["a", "b", "c"]
    assert samples.rows.tolist() == [4, 5, 9]
    assert samples.actions.tolist() == ["Walking", "Walking", "Eating"]
    assert samples.errors_mm.mean() == pytest.approx(result["mpjpe_mm"], rel=1e-6)
    for name in ("predicted_mm", "true_mm", "predicted_px", "true_px", "spread_mm"):
        np.testing.assert_array_equal(getattr(samples, name), getattr(evaluated, name))
    other = replace(evaluated, keys=["a", "b", "d"])
    write_score(tmp_path, other)
    with pytest.raises(InputError, match=r"score\.npz: not the samples of score\.json"):
        read_samples(card, result)
    (tmp_path / "score.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="damaged"):
        read_samples(card, {"samples_sha256": digest(b"PK")})
    (tmp_path / "score.npz").unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_samples(card, result)


def test_the_leaderboards_file(evaluated: Evaluated) -> None:
    header, *lines = leaderboard_csv(evaluated.predicted_mm).decode().splitlines()
    assert header.split(",")[:4] == ["Id", "pelvis_x", "pelvis_y", "pelvis_z"]
    assert [line.split(",")[0] for line in lines] == ["0", "1", "2"]
    read = np.array([[float(value) for value in line.split(",")[1:]] for line in lines])
    np.testing.assert_allclose(read, evaluated.predicted_mm.reshape(3, 51), atol=5.1e-5)
    assert all(len(value.split(".")[1]) == 4 for value in lines[0].split(",")[1:])


def test_two_cards_side_by_side(evaluated: Evaluated) -> None:
    result = score(evaluated)
    better = score(replace(evaluated, predicted_mm=(evaluated.predicted_mm + evaluated.true_mm) / 2))
    out = io.StringIO()
    print_comparison(better, result, "runs/[x]", ["flip test: True / False"], Console(file=out, width=120))
    for text in ("runs/[x]", "flip test: True / False", "47.1 mm", "23.5 mm", "-23.5 mm"):
        assert text in out.getvalue()


def shown(result: dict) -> str:
    out = io.StringIO()
    print_score(result, Console(file=out, width=200))
    return out.getvalue()
