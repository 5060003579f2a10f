"""What a network starts from: a backbone's weights, or another run."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from cluster.config import SettingsError, parse
from cluster.settings import Run
from cluster.settings_data import DataSettings
from cluster.weights import SavedModel, check_start, save_model, start
from poselib.errors import InputError
from poselib.model.backbone import ResNet
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings

pytestmark = pytest.mark.unit

# width 2: ResNet-50's names in a file of some 100 KB
SMALL = ModelSettings(backbone="resnet50", width=2, depth=4, decoder_channels=4, decoder_layers=1, ppm_bins=(1, 2))


def run_of(model: ModelSettings = SMALL, **values) -> Run:
    return Run(name="x", data=DataSettings(h36m=Path("set")), model=model, **values)


def published(blocks: tuple[int, ...], base: int) -> dict[str, torch.Tensor]:
    """A bottleneck ResNet's weights as torchvision publishes them: its names, a classifier, no step counters."""
    made: dict[str, torch.Tensor] = {}

    def conv(name: str, *shape: int) -> None:
        made[f"{name}.weight"] = torch.randn(shape)

    def norm(name: str, channels: int) -> None:
        for key in ("weight", "bias", "running_mean", "running_var"):
            made[f"{name}.{key}"] = torch.rand(channels)

    conv("conv1", base, 3, 7, 7)
    norm("bn1", base)
    inputs = base
    for stage, count in enumerate(blocks, start=1):
        inner = base * 2 ** (stage - 1)
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            shapes = ((inner, inputs, 1, 1), (inner, inner, 3, 3), (4 * inner, inner, 1, 1))
            for place, shape in enumerate(shapes, start=1):
                conv(f"{prefix}.conv{place}", *shape)
                norm(f"{prefix}.bn{place}", shape[0])
            if block == 0:
                conv(f"{prefix}.downsample.0", 4 * inner, inputs, 1, 1)
                norm(f"{prefix}.downsample.1", 4 * inner)
            inputs = 4 * inner
    conv("fc", 1000, inputs)
    made["fc.bias"] = torch.rand(1000)
    return made


RESNET50 = (3, 4, 6, 3)


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return published(RESNET50, 2)


def says(error: pytest.ExceptionInfo, *words: str) -> None:
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def equal(network: PoseNetwork, tensors: dict[str, torch.Tensor]) -> bool:
    own = network.backbone.state_dict()
    return all(torch.equal(own[name], tensor) for name, tensor in tensors.items() if not name.startswith("fc."))


class TestFiles:
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_every_tensor_of_a_file_arrives(self, tensors, tmp_path, suffix):
        path = tmp_path / f"weights{suffix}"
        safetensors.torch.save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
        network = PoseNetwork(SMALL)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        started = start(network, run_of(weights=str(path)))
        assert equal(network, tensors)
        after = network.state_dict()
        assert all(torch.equal(after[n], t) for n, t in before.items() if not n.startswith("backbone."))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert started.tags == {"posecluster.start": str(path), "posecluster.start_sha256": digest}
        (line,) = started.lines
        for words in (str(path), digest[:12], f"{len(tensors) - 2} tensors", "unused: fc.bias, fc.weight"):
            assert words in line

    def test_wrapped_and_prefixed_tensors_are_found(self, tensors, tmp_path):
        path = tmp_path / "checkpoint.pth"
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in tensors.items()}}, path)
        network = PoseNetwork(SMALL)
        start(network, run_of(weights=str(path)))
        assert equal(network, tensors)

    def test_the_published_names_and_shapes_are_those_of_the_full_network(self):
        with torch.device("meta"):
            own, theirs = ResNet("resnet50").state_dict(), published(RESNET50, 64)
        assert {n: t.shape for n, t in theirs.items() if not n.startswith("fc.")} == {
            n: t.shape for n, t in own.items() if not n.endswith("num_batches_tracked")
        }

    def test_botnet_takes_all_but_the_attention(self, tensors, tmp_path):
        torch.save(tensors, tmp_path / "weights.pth")
        network = PoseNetwork(replace(SMALL, backbone="botnet50"))
        (line,) = start(network, run_of(network.settings, weights=str(tmp_path / "weights.pth"))).lines
        assert "at random: layer4.0.conv2.rows, layer4.0.conv2.columns and 7 more" in line
        assert "unused: fc.bias, fc.weight and 3 more" in line
        assert torch.equal(network.backbone.layer4[2].conv3.weight, tensors["layer4.2.conv3.weight"])

    @pytest.mark.parametrize(
        ("model", "words"),
        [
            ({"backbone": "resnet101"}, ["model.backbone resnet101", "missing layer3.6.conv1.weight"]),
            ({"backbone": "resnet18"}, ["unexpected", "is 2x2x1x1 there and 2x2x3x3 here"]),
            ({"width": 4}, ["model.width 4", "conv1.weight is 2x3x7x7 there and 4x3x7x7 here"]),
        ],
    )
    def test_weights_of_another_network_are_refused(self, tensors, tmp_path, model, words):
        torch.save(tensors, tmp_path / "weights.pth")
        with pytest.raises(InputError) as error:
            check_start(run_of(replace(SMALL, **model), weights=str(tmp_path / "weights.pth")))
        says(error, "weights.pth is of another network than", *words)

    def test_a_model_of_this_toolkit_is_no_backbone(self, tmp_path):
        network = PoseNetwork(SMALL)
        save_model(tmp_path / "model.safetensors", SavedModel(network, 1, 1.0, np.zeros((17, 3))))
        with pytest.raises(InputError, match="a whole network, not a backbone; start from it with --init_from"):
            check_start(run_of(weights=str(tmp_path / "model.safetensors")))

    def test_a_network_of_others_is_no_backbone(self, tensors, tmp_path):
        torch.save({f"backbone.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "other.pth")
        with pytest.raises(InputError, match="a whole network, not a backbone; only its backbone's tensors"):
            check_start(run_of(weights=str(tmp_path / "other.pth")))


class TestAnotherRun:
    @pytest.fixture
    def earlier(self, tmp_path) -> tuple[Path, PoseNetwork]:
        torch.manual_seed(7)
        network = PoseNetwork(SMALL)
        (tmp_path / "earlier").mkdir()
        saved = SavedModel(network, 66, 80.5, np.zeros((17, 3)))
        save_model(tmp_path / "earlier" / "model.safetensors", saved)
        return tmp_path / "earlier", network

    def test_the_whole_network_goes_on(self, earlier):
        folder, before = earlier
        for place in (folder, folder / "model.safetensors"):
            network = PoseNetwork(SMALL)
            started = start(network, run_of(init_from=place))
            torch.testing.assert_close(network.state_dict(), before.state_dict(), rtol=0, atol=0)
            digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
            assert started.tags["posecluster.start_sha256"] == digest
            assert "step 66" in started.lines[0]
            assert len(started.lines) == 1

    def test_settings_that_differ_without_a_shape_are_told(self, earlier):
        model = replace(SMALL, crop_width=64, ppm_bins=(1, 4))
        lines = start(PoseNetwork(model), run_of(model, init_from=earlier[0])).lines
        assert "model.crop_width 256 -> 64, model.ppm_bins [1, 2] -> [1, 4]" in lines[1]

    def test_another_depth_is_refused_until_the_head_starts_fresh(self, earlier):
        model = replace(SMALL, depth=6)
        with pytest.raises(InputError) as error:
            check_start(run_of(model, init_from=earlier[0]))
        says(
            error,
            "model.depth 4 -> 6",
            "decoder.head.weight is 68x4x1x1 there and 102x4x1x1 here",
            "--init_fresh [head]",
        )
        torch.manual_seed(0)
        network = PoseNetwork(model)
        head = network.decoder.head.weight.clone()
        (line, _) = start(network, run_of(model, init_from=earlier[0], init_fresh=("head",))).lines
        assert "at random: head" in line
        assert torch.equal(network.decoder.head.weight, head)
        assert equal(network, {n[9:]: t for n, t in earlier[1].state_dict().items() if n.startswith("backbone.")})

    @pytest.mark.parametrize(
        ("model", "parts"),
        [
            ({"ppm_bins": None}, "pyramid, upsampling"),
            ({"ppm_bins": (1, 2, 4)}, "pyramid, upsampling"),
            ({"head": "regression"}, "upsampling, head"),
            ({"backbone": "botnet50"}, "backbone"),
        ],
    )
    def test_every_part_that_does_not_fit_is_named(self, earlier, model, parts):
        changed = replace(SMALL, **model)
        with pytest.raises(InputError) as error:
            check_start(run_of(changed, init_from=earlier[0]))
        says(error, f"--init_fresh [{parts}]")
        check_start(run_of(changed, init_from=earlier[0], init_fresh=tuple(parts.split(", "))))

    def test_a_folder_without_a_model_is_named(self, tmp_path):
        with pytest.raises(InputError, match="the run has not saved a model yet"):
            check_start(run_of(init_from=tmp_path))
        with pytest.raises(InputError, match=r"init_from .*gone does not exist; give a run's folder"):
            check_start(run_of(init_from=tmp_path / "gone"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "imagenet", "--model.backbone", "resnet10"], "ImageNet weights exist for resnet18, resnet34"),
        (["--weights", "imagenet", "--model.width", "32"], "of model.width 32"),
        (["--weights", "ftp://host/resnet50-0676ba61.pth"], "weights must be none, imagenet, a file or a http"),
        (["--weights", "https://host/resnet50.pth"], "weights_sha256 must be given for a URL"),
        (["--weights", "x.pth", "--weights_sha256", "12"], "weights_sha256 must be 8 to 64 hexadecimal digits"),
        (["--weights", "imagenet", "--weights_sha256", "12345678"], "weights_sha256 must stay empty"),
        (["--init_from", "runs/other", "--weights", "imagenet"], "init_from must be left out, or weights be none"),
        (
            ["--weights", "https://host/get?file=resnet50-0676ba61.pth"],
            "weights must be a URL that ends in a file's name",
        ),
        (["--weights", "https://host/x/..", "--weights_sha256", "12345678"], "weights must be a URL that ends in"),
        (["--init_from", "resnet50.pth"], "init_from must be a run's folder or a .safetensors file"),
        (["--init_fresh", "[head]"], "init_fresh must stay empty without init_from"),
        (["--init_from", "runs/other", "--init_fresh", "[tail]"], "init_fresh"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(words, message):
    with pytest.raises(SettingsError) as error:
        parse(Run, ["--name", "x", "--data.h36m", "set", *words])
    says(error, "command line", message)


def test_one_word_of_the_command_line_starts_from_another_run():
    run = parse(Run, ["--name", "x", "--data.h36m", "set", "--init_from", "runs/other", "--init_fresh", "[head]"])
    assert (run.init_from, run.init_fresh, run.weights) == (Path("runs/other"), ("head",), "none")
