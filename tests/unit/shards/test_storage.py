"""Shard sets behind URLs, on network file systems and through the cache; failures that mend and that do not."""

import hashlib
import http.server
import os
import pickle
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import pose
from poselib.errors import InputError
from shards.cache import FileCache
from shards.manifest import ShardSet
from shards.place import _Mapped, _Plain
from shards.storage import cache_folder, file_system, is_far, is_url, retried
from shards.storage_settings import StorageSettings
from shards.verify import verify

pytestmark = pytest.mark.unit


@pytest.fixture
def storage(tmp_path) -> StorageSettings:
    return StorageSettings(cache=tmp_path / "cache", attempts=3, backoff_s=0.01)


@pytest.fixture
def in_memory(shard_sets):
    """The studio's Human3.6M as `memory://h36m`."""
    system = fsspec.filesystem("memory")
    system.put(str(shard_sets["h36m"]) + "/", "/h36m/", recursive=True)
    yield "memory://h36m"
    system.rm("/h36m", recursive=True)


class Flaky(MemoryFileSystem):
    """Fails `failures` times, then works."""

    protocol = "flaky"
    failures = 0
    opened = 0

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://"))

    def _open(self, path, mode="rb", **options):
        Flaky.opened += 1
        if Flaky.failures > 0:
            Flaky.failures -= 1
            raise ConnectionError("the store hung up")
        return super()._open(path, mode, **options)


@pytest.fixture
def flaky(in_memory):
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.failures = Flaky.opened = 0
    return "flaky://h36m"


def assert_same_content(found: ShardSet, true: ShardSet) -> None:
    rows = range(len(true))
    for one, other in zip(found.read_bytes(rows)[0], true.read_bytes(rows)[0], strict=True):
        assert bytes(one) == bytes(other)
    np.testing.assert_array_equal(found.read_bytes(rows)[1], true.read_bytes(rows)[1])
    assert found.read(3).key == true.read(3).key


def test_a_set_in_memory_reads_as_the_folder_it_came_from(in_memory, shard_sets, storage):
    found = ShardSet.open(in_memory, storage=storage)
    assert_same_content(found, ShardSet.open(shard_sets["h36m"]))
    assert_same_content(pickle.loads(pickle.dumps(found)), found)
    # What was fetched once is not fetched again.
    fsspec.filesystem("memory").rm("/h36m/samples.npy")
    assert_same_content(ShardSet.open(in_memory, storage=storage), found)


def test_a_set_behind_http_reads_as_the_folder_it_came_from(shard_sets, storage):
    handler = partial(QuietHandler, directory=str(shard_sets["h36m"]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            assert_same_content(ShardSet.open(url, storage=storage), ShardSet.open(shard_sets["h36m"]))
            with pytest.raises(InputError, match=rf"{url}/none/manifest.json cannot be read"):
                ShardSet.open(f"{url}/none", storage=storage)
        finally:
            server.shutdown()
            thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_a_store_that_fails_now_and_then_is_asked_again(flaky, shard_sets, storage):
    Flaky.failures = 2
    shards = ShardSet.open(flaky, storage=storage)
    Flaky.failures = 2
    shards.read_bytes([0])
    assert Flaky.failures == 0
    assert_same_content(shards, ShardSet.open(shard_sets["h36m"]))


def test_a_store_that_keeps_failing_is_named(flaky, storage):
    shards = ShardSet.open(flaky, storage=storage)
    Flaky.failures, Flaky.opened = 99, 0
    file = shards.manifest.shards[0].file
    with pytest.raises(InputError, match=rf"^flaky://h36m/{file} cannot be read, tried 3 times \(the store hung up\)$"):
        shards.read_bytes([0])
    assert Flaky.opened == 3


def test_pauses_double_and_what_no_patience_mends_is_not_tried_again(storage, monkeypatch):
    pauses = []
    monkeypatch.setattr("shards.storage.time.sleep", pauses.append)

    def fail(error):
        raise error

    with pytest.raises(InputError, match=r"x cannot be read, tried 4 times \(Input/output error\)"):
        retried(lambda: fail(OSError(5, "Input/output error")), "x", StorageSettings(attempts=4, backoff_s=0.5))
    assert pauses == [0.5, 1.0, 2.0]
    with pytest.raises(InputError, match=r"x cannot be read \(No such file"):
        retried(lambda: fail(FileNotFoundError(2, "No such file")), "x", storage)
    with pytest.raises(InputError, match="Install s3fs"):
        retried(lambda: fail(ImportError("Install s3fs to access S3")), "x", storage)
    assert len(pauses) == 3


def test_an_unknown_protocol_is_one_line(storage):
    with pytest.raises(InputError, match=r"nope://x/manifest\.json: .*a folder, or a URL such as"):
        ShardSet.open("nope://x", storage=storage)


def test_a_shard_that_is_another_one_by_now_is_refused_and_not_kept(in_memory, storage):
    shards = ShardSet.open(in_memory, storage=storage)
    system, shard = fsspec.filesystem("memory"), shards.manifest.shards[0]
    content = system.cat(f"/h36m/{shard.file}")
    system.pipe(f"/h36m/{shard.file}", content[:-1] + b"x")
    with pytest.raises(InputError, match=rf"has SHA-256 \w+, the manifest says SHA-256 {shard.sha256[:12]}"):
        shards.read_bytes([0])
    system.pipe(f"/h36m/{shard.file}", content[:-512])
    with pytest.raises(InputError, match=rf"{shard.file} has {shard.bytes - 512} bytes, .* says {shard.bytes}"):
        shards.read_bytes([0])
    system.pipe(f"/h36m/{shard.file}", content)
    assert len(shards.read_bytes([0])[0]) == 1


def test_verify_takes_urls_and_names_the_damaged_samples(in_memory, storage, capsys):
    words = ["--storage.cache", str(storage.cache)]
    assert pose.main(["shards", "verify", in_memory, *words]) == 0
    assert "memory://h36m: " in capsys.readouterr().out
    shards = ShardSet.open(in_memory, storage=storage)
    key, file = shards.read(1).key, shards.manifest.shards[0].file
    content = bytearray(fsspec.filesystem("memory").cat(f"/h36m/{file}"))
    content[int(shards.samples["jpg_offset"][1]) + 50] ^= 1
    fsspec.filesystem("memory").pipe(f"/h36m/{file}", bytes(content))
    with pytest.raises(InputError, match=rf"^memory://h36m is damaged: {file} \({key}\)"):
        verify(in_memory, storage)


def put(cache: FileCache, content: bytes, fetched: list | None = None) -> Path:
    def fetch(into):
        into.write(content)
        if fetched is not None:
            fetched.append(content)

    return cache.get(hashlib.sha256(content).hexdigest(), len(content), "file", fetch)


def test_the_cache_stays_within_its_bound_and_loses_what_was_unused_for_longest(tmp_path):
    cache, fetched = FileCache(tmp_path, 250), []
    a, b, c, d = (bytes([value]) * 100 for value in range(4))
    for second, content in enumerate((a, b)):
        os.utime(put(cache, content, fetched), (second, second))
    put(cache, a, fetched)  # used again: b is the older one now
    put(cache, c, fetched)
    held = sorted(path.read_bytes() for path in tmp_path.glob("??/*"))
    assert held == [a, c]
    put(cache, a, fetched)
    assert fetched == [a, b, c]
    put(cache, d, fetched)
    assert sum(path.stat().st_size for path in tmp_path.glob("??/*")) <= 250
    with pytest.raises(InputError, match=r"loader\.storage\.cache_gb: .* cannot hold file"):
        put(cache, bytes(251))


def test_a_fetch_that_fails_leaves_nothing(tmp_path):
    cache = FileCache(tmp_path, 1000)
    with pytest.raises(InputError, match="has 3 bytes, the manifest says 4 bytes"):
        cache.get("00" * 32, 4, "file", lambda into: into.write(b"abc"))
    assert [path for path in tmp_path.glob("??/*") if path.is_file()] == []
    left = tmp_path / "00" / f".{'00' * 32}.writing-killed"
    left.write_bytes(b"half")
    with pytest.raises(InputError, match="SHA-256"):
        cache.get("00" * 32, -1, "file", lambda into: into.write(b"abc"))
    assert not left.exists()


def test_what_killed_fetches_left_goes_and_what_others_fetch_now_stays(tmp_path):
    cache, first = FileCache(tmp_path, 1000), b"first"
    left = tmp_path / "zz" / ".half.writing-killed"
    left.parent.mkdir()
    left.write_bytes(b"half")

    def fetch(into):
        assert not left.exists()
        put(cache, b"second")  # while the first one is being fetched
        into.write(first)

    assert hashlib.sha256(first).hexdigest()[:2] != hashlib.sha256(b"second").hexdigest()[:2]
    path = cache.get(hashlib.sha256(first).hexdigest(), len(first), "file", fetch)
    assert path.read_bytes() == first


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"loader\.storage\.cache: .*file cannot hold"):
        put(FileCache(tmp_path / "file", 100), b"x")


FETCH = """
import hashlib, sys, time
from pathlib import Path
from shards.cache import FileCache

folder, content = Path(sys.argv[1]), b"x" * 1000

def fetch(into):
    with (folder / "log").open("a") as file:
        file.write("fetched\\n")
    time.sleep(0.3)
    into.write(content)

(folder / f"ready{sys.argv[2]}").touch()
while len(list(folder.glob("ready*"))) < 3:
    time.sleep(0.01)
for _ in range(3):
    FileCache(folder / "cache", 10**6).get(hashlib.sha256(content).hexdigest(), 1000, "file", fetch)
"""


def test_processes_that_want_the_same_file_fetch_it_once(tmp_path):
    command = [sys.executable, "-c", FETCH, str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank)], cwd=Path(pose.__file__).parent) for rank in range(3)]
    assert [rank.wait(60) for rank in ranks] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "fetched\n"


def test_a_set_larger_than_the_cache_is_read_through_it(in_memory, shard_sets, storage):
    true = ShardSet.open(shard_sets["h36m"])
    largest = max(shard.bytes for shard in true.manifest.shards)
    table = (shard_sets["h36m"] / "samples.npy").stat().st_size
    small = StorageSettings(cache=storage.cache, cache_gb=(2 * largest + table) / 1e9)
    assert sum(shard.bytes for shard in true.manifest.shards) > 2 * largest + table
    found = ShardSet.open(in_memory, storage=small)
    for _ in range(2):
        assert_same_content(found, true)
    assert sum(path.stat().st_size for path in storage.cache.glob("??/*")) <= 2 * largest + table


MOUNTS = """\
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:50 / /home rw - nfs4 server:/home rw
41 40 0:51 / /home/me/local\\040disk rw - xfs /dev/sdb rw
42 27 0:52 / /lustre rw - lustre mds:/fs rw
43 27 0:53 / /bucket rw - fuse.s3fs s3fs rw
44 27 0:54 / /windows rw - fuseblk /dev/sdc rw
45 42 0:55 / /lustre rw - tmpfs tmpfs rw
"""


def test_network_file_systems_are_told_by_their_mounts(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    kinds = {"/data/x": "ext4", "/home/me": "nfs4", "/home/me/local disk/x": "xfs", "/homes": "ext4"}
    kinds |= {"/lustre/x": "tmpfs", "/bucket/x": "fuse.s3fs", "/windows": "fuseblk"}
    assert {path: file_system(Path(path), mounts) for path in kinds} == kinds
    far = [path for path in kinds if is_far(path, mounts)]
    assert far == ["/home/me", "/bucket/x"]
    assert file_system(tmp_path, tmp_path / "none") == ""
    assert is_far("s3://bucket/set")
    assert not is_url(Path("data/set"))


def test_the_cache_stands_where_the_desktop_standard_puts_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(StorageSettings()) == tmp_path / "posecluster" / "shards"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(StorageSettings()) == tmp_path / ".cache" / "posecluster" / "shards"
    assert cache_folder(StorageSettings(cache=Path("x"))) == Path("x")


@pytest.mark.parametrize("far", [True, False])
def test_local_folders_are_mapped_and_those_on_networks_are_not(shard_sets, monkeypatch, far):
    monkeypatch.setattr("shards.place.is_far", lambda path: far)
    shards = ShardSet.open(shard_sets["h36m"])
    assert_same_content(shards, ShardSet.open(shard_sets["h36m"]))
    kinds = {type(handle) for _, handle in shards._files._open.values()}
    assert kinds == {_Plain if far else _Mapped}


@pytest.mark.parametrize("kind", [_Plain, _Mapped])
def test_reads_behind_the_end_are_short(tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    file = kind(path)
    assert file.read(2, 3) == b"234"
    assert len(file.read(8, 5)) < 5
    os.truncate(path, 4)
    assert len(file.read(2, 3)) < 3
    file.close()
    (tmp_path / "empty").write_bytes(b"")
    empty = kind(tmp_path / "empty")
    assert empty.read(0, 1) == b""
    empty.close()


def test_a_handle_that_went_stale_is_opened_anew(shard_sets, tmp_path, monkeypatch):
    monkeypatch.setattr("shards.place.is_far", lambda path: True)
    folder = shutil.copytree(shard_sets["h36m"], tmp_path / "set")
    shards = ShardSet.open(folder, storage=StorageSettings(attempts=2, backoff_s=0.0))
    true = bytes(shards.read_bytes([0])[0][0])
    os.close(shards._files._open[0][1]._handle)
    shards._files._open[0][1]._handle = os.open(folder / "x", os.O_WRONLY | os.O_CREAT)  # no reads
    assert bytes(shards.read_bytes([0])[0][0]) == true
