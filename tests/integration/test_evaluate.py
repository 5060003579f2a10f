"""`pose eval` on a small run: presets, flip test, calibration, samples, leaderboard, and scores side by side."""

import json
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

import pose
from cluster.config import dump
from cluster.data import evaluation_source
from cluster.evaluate import evaluation_batches, predict
from cluster.predict.poses import Predictor
from cluster.samples import read_samples
from cluster.settings import Run
from cluster.settings_data import DataSettings
from cluster.settings_engine import EngineSettings
from cluster.tracking.settings import TrackingSettings
from cluster.weights import SavedModel, load_model, save_model
from poselib.calibration import calibrate
from poselib.camera import apply_affine
from poselib.metrics import joint_errors_mm
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings
from poselib.volume import to_crop_px
from shards.build import build
from shards.loader_settings import CropSettings
from shards.manifest import ShardSet
from shards.settings import BuildSettings, StudioSettings
from shards.studio.make import make_studio

pytestmark = pytest.mark.integration


@pytest.fixture
def run(shard_sets, tmp_path) -> Run:
    """A run that knows S1 alone, and one beside it with other weights; S9 is there to be scored."""
    data = DataSettings(
        h36m=str(shard_sets["h36m"]), train_subjects=("S1",), val_subjects=("S8",), test_subjects=("S9",), every_test=1
    )
    model = ModelSettings("resnet10", 4, 64, 64, 8, 2000.0, (1, 2), 0, 8, 2)
    made = Run(
        name="one",
        data=data,
        runs_dir=tmp_path,
        model=model,
        crop=CropSettings(allow_border=True),
        tracking=TrackingSettings(enabled=False),
    )
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        network = PoseNetwork(model).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.yaml").write_text(dump(replace(made, name=name)))
        save_model(tmp_path / name / "model.safetensors", SavedModel(network, 7, 99.0, np.zeros((17, 3))))
    return made


def test_a_score_and_everything_beside_it(run, capsys):
    with patch.object(ShardSet, "read", side_effect=AssertionError("pictures are read once, by the loader")):
        assert pose.main(["eval", str(run.folder)]) == 0
    assert "calibration error" in capsys.readouterr().out
    card = json.loads((run.folder / "score.json").read_text())
    samples, shards = read_samples(run.folder / "score.json", card), ShardSet.open(run.data.h36m)
    assert len(samples) == card["samples"]
    assert card["protocol"]["selected on"] == "MPJPE, mean of all poses of S8, one frame in 64"
    errors = joint_errors_mm(samples.predicted_mm, samples.true_mm)
    assert card["calibration_error"] == pytest.approx(calibrate(samples.spread_mm[:, 1:], errors[:, 1:]).error)
    for place in (0, len(samples) - 1):
        sample = shards.read(int(samples.rows[place]))
        assert (sample.key, sample.names.action) == (samples.keys[place], samples.actions[place])
        np.testing.assert_array_equal(sample.arrays["joints_px"], samples.true_px[place])
        # Predicted px and mm are one pose: the pelvis' predicted depth is the only unknown of 17 joints.
        mm, (fx, fy, cx, cy) = samples.predicted_mm[place].astype(float), sample.arrays["intrinsics"]
        rays = (samples.predicted_px[place] - [cx, cy]) / [fx, fy]
        slopes, offsets = (rays - rays[0]).ravel(), (mm[:, :2] - rays * mm[:, 2:]).ravel()
        depth = slopes @ offsets / (slopes @ slopes)
        np.testing.assert_allclose(slopes * depth, offsets, atol=0.1)
        assert abs(depth - sample.arrays["joints_mm"][0, 2]) < run.model.depth_range_mm


def test_training_validates_to_the_same_poses_without_spreads(run):
    source, device = evaluation_source(run, "test"), torch.device("cpu")
    network = load_model(run.folder / "model.safetensors", device).network.train()
    plain, spread = (
        predict(network, evaluation_batches(run, source, 3, device, 1), source, run, spread=measured)
        for measured in (False, True)
    )
    assert network.training
    np.testing.assert_array_equal(plain.places, np.arange(len(source.rows)))
    np.testing.assert_allclose(plain.predicted_mm, spread.predicted_mm, atol=0.01)
    assert np.isnan(plain.spread_mm).all()
    assert (spread.spread_mm > 0).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_prediction_computes_as_scoring_does(run, precision):
    run = replace(run, engine=EngineSettings(precision=precision))
    (run.folder / "run.yaml").write_text(dump(run))
    source, device = evaluation_source(run, "test"), torch.device("cpu")
    predictor = Predictor.load(run.folder, device="cpu", flip_test=True)
    (batch,) = evaluation_batches(run, source, 2, device, 1, places=np.arange(2))
    found = predict(predictor.network, iter([batch]), source, run, flip_test=True, spread=True)
    answers = predictor.answer(batch.pictures.numpy())
    px = apply_affine(batch.plan.stored_from_crop.astype(float), to_crop_px(answers.uvz, run.model))
    np.testing.assert_allclose(px, found.predicted_px, atol=1e-3)


def test_scores_side_by_side_or_refused(run, capsys):
    two = run.runs_dir / "two"
    assert pose.main(["eval", str(two)]) == 0
    assert pose.main(["eval", str(run.folder), "--against", str(two)]) == 0
    shown = capsys.readouterr()
    assert "against" in shown.out
    assert "Different protocols" not in shown.out
    words = ["eval", str(run.folder), "--flip_test", "true", "--against"]
    assert pose.main([*words, str(two)]) == 1
    assert "two/score_flip.json does not exist" in capsys.readouterr().err
    assert pose.main([*words, str(two / "score.json")]) == 1
    assert "by another protocol (flip test: True / False)" in capsys.readouterr().err
    assert not (run.folder / "score_flip.json").exists()
    assert pose.main([*words, str(two / "score.json"), "--across_protocols", "true"]) == 0
    assert "Different protocols, this / other: flip test: True / False" in " ".join(capsys.readouterr().out.split())
    flipped, plain = (json.loads((run.folder / f"score{end}.json").read_text()) for end in ("_flip", ""))
    assert flipped["mpjpe_mm"] != plain["mpjpe_mm"]


@pytest.fixture(scope="module")
def both_tested(tmp_path_factory):
    """A shard set of those on whom presets score: S9 and S11, every 2nd of 4 frames."""
    folder = tmp_path_factory.mktemp("tested")
    make_studio(
        StudioSettings(
            out=folder,
            frames=4,
            frame_px=128,
            subjects=("S9", "S11"),
            actions=("Directions",),
            mpii_pictures=1,
            voc_pictures=1,
            workers=1,
        )
    )
    build(BuildSettings(raw=folder / "h36m", out=folder / "set", stored_px=96, every=2, every_test=0, workers=1))
    return folder / "set"


def test_presets_to_the_end(run, both_tested, capsys):
    words = ["eval", str(run.folder), "--h36m", str(both_tested), "--protocol"]
    shards = ShardSet.open(both_tested)
    ending = shards.manifest.set_hash[:8]
    for protocol, subjects, every in (
        ("eth", ["S9", "S11"], 1),
        ("protocol1", ["S11"], 64),
        ("protocol2", ["S9", "S11"], 64),
    ):
        assert pose.main([*words, protocol, *(["--leaderboard", "true"] if protocol == "eth" else [])]) == 0
        card = json.loads((run.folder / f"score_{protocol}_{ending}.json").read_text())
        assert card["samples"] == len(shards.select(subjects, every))
        said = card["protocol"]
        assert (said["protocol"], sorted(said["subjects"]), said["every"]) == (protocol, sorted(subjects), every)
        assert said["stored frames"] == "one in 2"
        assert said["selected on"] == "MPJPE, mean of all poses of S8, one frame in 64"
        assert card[said["headline"]] > 0
    assert (run.folder / f"score_eth_{ending}.csv").read_text().count("\n") - 1 == len(shards)
    assert "trained on S1, protocol2 on" in capsys.readouterr().out


def test_a_leaderboard_of_a_part_of_the_frames_is_refused(run, capsys):
    assert pose.main(["eval", str(run.folder), "--leaderboard", "true"]) == 2
    assert "leaderboard must stand beside --protocol eth" in capsys.readouterr().err


def test_a_preset_on_a_set_that_lacks_its_people(run, capsys):
    assert pose.main(["eval", str(run.folder), "--protocol", "protocol1"]) == 1
    assert "has no subject S11" in capsys.readouterr().err
