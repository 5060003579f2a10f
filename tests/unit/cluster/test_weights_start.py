"""What a run starts from: ImageNet weights from a file, torch hub's cache or a URL, or another run."""

import hashlib
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from cluster import pretrained
from cluster.config import SettingsError, parse
from cluster.pretrained import find_weights, read_weights
from cluster.settings import Run
from cluster.settings_data import DataSettings
from cluster.settings_weights import IMAGENET
from cluster.weights import SavedModel, check_start, save_model, start
from cluster.world import free_port
from poselib.errors import InputError
from poselib.model.backbone import ResNet
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings

pytestmark = pytest.mark.unit

# width 2: ResNet-50's names in a file of some 100 KB
SMALL = ModelSettings(backbone="resnet50", width=2, depth=4, decoder_channels=4, decoder_layers=1, ppm_bins=(1, 2))


def run_of(model: ModelSettings = SMALL, **values) -> Run:
    return Run(name="x", data=DataSettings(h36m=Path("set")), model=model, **values)


def published(blocks: tuple[int, ...], base: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """A bottleneck ResNet's weights as torchvision publishes them: its names, a classifier, no step counters."""
    made: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(seed)

    def conv(name: str, *shape: int) -> None:
        made[f"{name}.weight"] = torch.randn(shape, generator=generator)

    def norm(name: str, channels: int) -> None:
        for key in ("weight", "bias", "running_mean", "running_var"):
            made[f"{name}.{key}"] = torch.rand(channels, generator=generator)

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
    made["fc.bias"] = torch.rand(1000, generator=generator)
    return made


RESNET50 = (3, 4, 6, 3)


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return published(RESNET50, 2)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """torch hub's cache, empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def site(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL at which it is served on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def named(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """The tensors in a file whose name ends in its hash, as torchvision's do."""
    path = folder / "part"
    torch.save(tensors, path)
    return path.rename(folder / f"resnet50-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth")


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
            own = ResNet("resnet50").state_dict()
        theirs = published(RESNET50, 64)
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
        with pytest.raises(InputError, match="start from it with --init_from"):
            check_start(run_of(weights=str(tmp_path / "model.safetensors")))

    def test_a_payload_is_refused_and_not_run(self, tmp_path):
        class Payload:
            def __reduce__(self):
                return (tmp_path / "owned").mkdir, ()

        torch.save({"conv1.weight": Payload()}, tmp_path / "zip.pth")
        (tmp_path / "plain.pth").write_bytes(pickle.dumps({"conv1.weight": Payload()}))
        for name in ("zip.pth", "plain.pth"):
            with pytest.raises(InputError) as error:
                read_weights(tmp_path / name)
            says(error, f"{name} holds more than tensors and is refused")
        assert not (tmp_path / "owned").exists()

    @pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 half an archive"])
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_damaged_files_are_named(self, tmp_path, content, suffix):
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            read_weights(path)
        says(error, str(path))

    @pytest.mark.parametrize("content", [[torch.zeros(1)], {}, {"conv1.weight": 3}])
    def test_files_without_named_tensors_are_refused(self, tmp_path, content):
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(InputError, match="holds no tensors by name"):
            read_weights(tmp_path / "weights.pth")

    def test_hashes_are_checked(self, tensors, tmp_path):
        path = named(tmp_path, tensors)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert find_weights(str(path), "resnet50") == (path, digest)
        assert find_weights(str(path), "resnet50", digest.upper()) == (path, digest)
        with pytest.raises(InputError, match="not 00000000; it is damaged or another file"):
            find_weights(str(path), "resnet50", "00000000")
        other = path.rename(tmp_path / "resnet50-0676ba61.pth")
        with pytest.raises(InputError, match="not 0676ba61"):
            find_weights(str(other), "resnet50")
        dated = other.rename(tmp_path / "mine-20240101.pth")  # eight digits that are no hash
        assert find_weights(str(dated), "resnet50") == (dated, digest)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError) as error:
            find_weights(str(tmp_path / "gone.pth"), "resnet50")
        says(error, "gone.pth cannot be read (No such file or directory)", "a URL or imagenet")


class TestDownload:
    def test_a_url_is_fetched_once_into_the_cache(self, tensors, site, hub):
        folder, url = site
        path = named(folder, tensors)
        network = PoseNetwork(SMALL)
        start(network, run_of(weights=url + path.name))
        assert equal(network, tensors)
        assert [found.name for found in hub.iterdir()] == [path.name]
        path.unlink()  # a second start needs no network
        start(network, run_of(weights=url + path.name))

    def test_imagenet_is_torchvisions_file_of_the_backbone(self, tensors, site, hub, monkeypatch):
        folder, url = site
        path = named(folder, tensors)
        monkeypatch.setattr(pretrained, "_SITE", url)
        monkeypatch.setitem(IMAGENET, "resnet50", path.name)
        assert find_weights("imagenet", "resnet50")[0] == hub / path.name

    def test_another_hash_leaves_nothing(self, tensors, site, hub):
        folder, url = site
        named(folder, tensors).rename(folder / "resnet50-00000000.pth")
        with pytest.raises(InputError) as error:
            find_weights(url + "resnet50-00000000.pth", "resnet50")
        says(error, "not 00000000; nothing was kept")
        assert list(hub.iterdir()) == []

    def test_a_damaged_cache_is_named(self, site, hub):
        hub.mkdir(parents=True)
        (hub / "resnet50-0676ba61.pth").write_bytes(b"half")
        with pytest.raises(InputError) as error:
            find_weights("imagenet", "resnet50")
        says(error, str(hub / "resnet50-0676ba61.pth"), "remove it, and https://download.pytorch.org")

    def test_without_a_network_one_line_says_what_to_put_where(self, hub, monkeypatch):
        url = f"http://127.0.0.1:{free_port()}/"
        monkeypatch.setattr(pretrained, "_SITE", url)
        with pytest.raises(InputError) as error:
            find_weights("imagenet", "resnet152")
        place = hub / "resnet152-394f9c45.pth"
        says(error, f"{url}resnet152-394f9c45.pth cannot be reached", f"download it elsewhere and put it at {place}")
        assert list(hub.iterdir()) == []

    def test_a_page_that_is_not_there_is_named(self, site, hub):
        with pytest.raises(InputError) as error:
            find_weights(site[1] + "resnet50-0676ba61.pth", "resnet50")
        says(error, "answers 404", str(hub / "resnet50-0676ba61.pth"))

    def test_a_download_that_breaks_off_leaves_nothing(self, hub):
        class Half(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"x" * 10)

            def log_message(self, *words: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Half) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            with pytest.raises(InputError) as error:
                find_weights(f"http://127.0.0.1:{server.server_port}/resnet50-0676ba61.pth", "resnet50")
            server.shutdown()
            thread.join()
        says(error, "after 10 of 1000 bytes")
        assert list(hub.iterdir()) == []

    def test_a_cache_that_cannot_be_written_is_named(self, site, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.hub, "_hub_dir", None)
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
        with pytest.raises(InputError) as error:
            find_weights(site[1] + "resnet50-0676ba61.pth", "resnet50")
        says(error, "cannot be written", "set TORCH_HOME")


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "imagenet", "--model.backbone", "resnet10"], "ImageNet weights exist for resnet18, resnet34"),
        (["--weights", "imagenet", "--model.width", "32"], "of model.width 32"),
        (["--weights", "ftp://host/resnet50-0676ba61.pth"], "weights must be none, imagenet, a file or a http"),
        (["--weights", "https://host/resnet50.pth"], "weights_sha256 must be given for a URL"),
        (["--weights", "x.pth", "--weights_sha256", "12"], "weights_sha256 must be 8 to 64 hexadecimal digits"),
        (["--weights", "imagenet", "--weights_sha256", "12345678"], "weights_sha256 must stay empty"),
        (["--init_from", "runs/other", "--weights", "imagenet"], "init_from must not stand beside weights"),
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
