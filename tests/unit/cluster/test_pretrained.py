"""Files of first weights: found, downloaded into torch hub's cache, checked, read without running anything in them."""

import hashlib
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from cluster import pretrained
from cluster.pretrained import find_weights, read_weights
from cluster.settings_weights import IMAGENET
from cluster.world import free_port
from poselib.errors import InputError

pytestmark = pytest.mark.unit


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


def named(folder: Path) -> Path:
    """A file whose name ends in its hash, as torchvision's do."""
    path = folder / "part"
    path.write_bytes(b"weights")
    return path.rename(folder / f"resnet50-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth")


def says(error: pytest.ExceptionInfo, *words: str) -> None:
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


class TestReading:
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


class TestFinding:
    def test_hashes_are_checked(self, tmp_path):
        path = named(tmp_path)
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
    def test_a_url_is_fetched_once_into_the_cache(self, site, hub):
        folder, url = site
        path = named(folder)
        digest = hashlib.sha256(b"weights").hexdigest()
        assert find_weights(url + path.name, "resnet50") == (hub / path.name, digest)
        assert (hub / path.name).read_bytes() == b"weights"
        assert [found.name for found in hub.iterdir()] == [path.name]
        path.unlink()  # a second start needs no network
        assert find_weights(url + path.name, "resnet50") == (hub / path.name, digest)

    def test_files_of_one_name_lie_beside_each_other(self, site, hub):
        folder, url = site
        for content in (b"one", b"two"):
            digest = hashlib.sha256(content).hexdigest()
            (folder / "model.safetensors").write_bytes(content)
            path, found = find_weights(f"{url}model.safetensors?download=true", "resnet50", digest.upper())
            assert (path, found) == (hub / f"model-{digest[:8]}.safetensors", digest)
            assert path.read_bytes() == content
        assert len(list(hub.iterdir())) == 2

    def test_imagenet_is_torchvisions_file_of_the_backbone(self, site, hub, monkeypatch):
        folder, url = site
        path = named(folder)
        monkeypatch.setattr(pretrained, "_SITE", url)
        monkeypatch.setitem(IMAGENET, "resnet50", path.name)
        assert find_weights("imagenet", "resnet50")[0] == hub / path.name

    def test_another_hash_leaves_nothing(self, site, hub):
        folder, url = site
        named(folder).rename(folder / "resnet50-00000000.pth")
        with pytest.raises(InputError) as error:
            find_weights(url + "resnet50-00000000.pth", "resnet50")
        says(error, "not 00000000; nothing was kept")
        assert list(hub.iterdir()) == []

    def test_the_hash_in_a_name_is_checked_whatever_stands_behind_it(self, site, hub):
        folder, url = site
        (folder / "resnet50-00000000.pth").write_bytes(b"weights")
        with pytest.raises(InputError, match="not 00000000; nothing was kept"):
            find_weights(f"{url}resnet50-00000000.pth?file=x", "resnet50")

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
