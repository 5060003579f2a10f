"""`pose export`: files that say what the checkpoint says, for any batch, or are not written."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import pose
from cluster.export import export
from cluster.weights import SavedModel, load_model, save_model
from poselib.errors import InputError
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings
from poselib.volume import to_crop_px
from shards.normalise import normalise

pytestmark = pytest.mark.integration


def save(path, **changes) -> SavedModel:
    settings = {"backbone": "resnet10", "width": 4, "crop_width": 64, "crop_height": 96, "depth": 8}
    settings |= {"ppm_bins": (1, 2), "decoder_channels": 8, "decoder_layers": 2}
    torch.manual_seed(0)
    network = PoseNetwork(ModelSettings(**(settings | changes))).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    saved = SavedModel(network, 7, 99.0, np.zeros((17, 3)))
    save_model(path, saved)
    return saved


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 255, (count, 96, 64, 3), np.uint8)


def expected(path, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    network = load_model(path, torch.device("cpu")).network
    with torch.no_grad():
        uvz = network(normalise(torch.from_numpy(pictures)))
    return to_crop_px(uvz, network.settings).numpy(), uvz[..., 2].numpy() * network.settings.depth_range_mm


def test_onnx_says_what_the_checkpoint_says(tmp_path, capsys):
    save(tmp_path / "model.safetensors", backbone="botnet50", temperature=2.0)
    assert pose.main(["export", str(tmp_path / "model.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert float(shown.split("1 and 3: ")[1].split(" mm")[0]) < 0.1
    assert not list(tmp_path.glob(".*"))
    onnx.checker.check_model(onnx.load(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for count in (1, 5):
        got = session.run(["joints_px", "depth_mm"], {"pictures": crops(count)})
        for one, other in zip(got, expected(tmp_path / "model.safetensors", crops(count)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-2)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["crop_height"]) == 96
    assert json.loads(told["joints"])[0] == "pelvis"


@pytest.mark.parametrize("changes", [{"inference": "mode"}, {"head": "regression", "ppm_bins": None}])
def test_pt2_says_what_the_checkpoint_says(changes, tmp_path):
    save(tmp_path / "model.safetensors", **changes)
    out = tmp_path / "x.pt2"
    assert pose.main(["export", str(tmp_path / "model.safetensors"), "--format", "pt2", "--out", str(out)]) == 0
    extra = {"posecluster.json": ""}
    loaded = torch.export.load(out, extra_files=extra).module()
    for count in (1, 5):
        got = loaded(torch.from_numpy(crops(count)))
        for one, other in zip(got, expected(tmp_path / "model.safetensors", crops(count)), strict=True):
            np.testing.assert_allclose(one.detach().numpy(), other, atol=1e-2)
    assert json.loads(extra["posecluster.json"])["depth_range_mm"] == 2000


def test_a_file_that_is_off_is_not_written(tmp_path):
    saved = save(tmp_path / "model.safetensors")
    (tmp_path / "old.pt2").write_bytes(b"what was there")
    with pytest.raises(InputError, match=r"mm off the checkpoint, more than 1e-12; not written"):
        export(saved, tmp_path / "old.pt2", "pt2", tolerance_mm=1e-12)
    assert (tmp_path / "old.pt2").read_bytes() == b"what was there"
    assert not list(tmp_path.glob(".*"))


def test_missing_packages_and_runs_are_one_line(tmp_path, monkeypatch, capsys):
    save(tmp_path / "model.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    assert pose.main(["export", str(tmp_path / "model.safetensors")]) == 1
    assert "needs the package onnxscript" in capsys.readouterr().err
    assert pose.main(["export", str(tmp_path / "nowhere")]) == 1
    assert "is no run" in capsys.readouterr().err
