"""Nothing in a stranger's pickle runs; NumPy arrays and plain containers come through."""

import builtins
import os
import pickle
import shutil
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest

from poselib.errors import InputError
from shards.readers.safe_pickle import load_npy, load_pickle

pytestmark = pytest.mark.unit

PLAIN = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "table": np.zeros(3, [("R", "<f4", (3, 3)), ("frame_idx", "<i2")]),
    "strings": np.array(["S1", "S11"]),
    "big endian": np.arange(3, dtype=">i4"),
    "objects": np.array([{"a": 1}, None], dtype=object),
    "scalars": [np.float64(1.5), np.int8(-3), np.bool_(True), np.str_("text")],
    "containers": [(1, 2.0), {"x"}, frozenset([3]), OrderedDict(a=1), b"bytes", "text", None, True, 1 + 2j],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_containers_come_through(tmp_path, protocol):
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(PLAIN, protocol))
    loaded = load_pickle(path)
    assert loaded["containers"] == PLAIN["containers"]
    assert loaded["scalars"] == PLAIN["scalars"]
    for name in ("float32", "fortran", "table", "strings", "big endian"):
        np.testing.assert_array_equal(loaded[name], PLAIN[name])
        assert loaded[name].dtype.newbyteorder("=") == PLAIN[name].dtype.newbyteorder("=")
    assert loaded["objects"].tolist() == [{"a": 1}, None]


def test_the_older_home_of_numpys_functions_is_known(tmp_path):
    data = pickle.dumps(PLAIN["float32"], 2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core." in data
    (tmp_path / "old.pkl").write_bytes(data)
    np.testing.assert_array_equal(load_pickle(tmp_path / "old.pkl"), PLAIN["float32"])


def test_npy_files_with_and_without_objects(tmp_path):
    np.save(tmp_path / "objects.npy", PLAIN, allow_pickle=True)
    np.testing.assert_array_equal(load_npy(tmp_path / "objects.npy").item()["table"], PLAIN["table"])
    np.save(tmp_path / "numbers.npy", PLAIN["float32"])
    np.testing.assert_array_equal(load_npy(tmp_path / "numbers.npy"), PLAIN["float32"])


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(mark: Path) -> dict[str, tuple[bytes, str]]:
    """Payloads that would leave `mark` behind, and the name that each must be refused for."""
    shell = f"touch {mark}"
    code = f"open({str(mark)!r}, 'w')"
    chain = b"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR(S'" + shell.encode() + b"'\ntR."
    return {
        "system": (pickle.dumps(Calls(os.system, shell)), "posix.system"),
        "eval": (pickle.dumps(Calls(builtins.eval, code)), "builtins.eval"),
        "exec in a list": (pickle.dumps([1, {"a": (Calls(builtins.exec, code),)}]), "builtins.exec"),
        "open": (pickle.dumps(Calls(builtins.open, str(mark), "w")), "open"),
        "copy": (pickle.dumps(Calls(shutil.copy, __file__, str(mark))), "shutil.copy"),
        "getattr": (chain, "builtins.getattr"),
        "old shell": (b"cos\nsystem\n(S'" + shell.encode() + b"'\ntR.", "os.system"),
        "instance": (b"(S'" + shell.encode() + b"'\nios\nsystem\n.", "os.system"),
        "dotted": (b"\x80\x04\x8c\x05numpy\x8c\x11testing.os.system\x93.", "numpy.testing.os.system"),
        "numpy's own": (pickle.dumps(Calls(np.memmap, str(mark), "u1", "w+", 0, (1,))), "memmap"),
        "path": (pickle.dumps(Path(mark)), "PosixPath"),
        "factory": (pickle.dumps(defaultdict(list)), "collections.defaultdict"),
        "codec": (pickle.dumps(Calls(__import__("_codecs").encode, "text", "rot13")), "the codec rot13"),
    }


@pytest.mark.parametrize("kind", list(hostile(Path("mark"))))
@pytest.mark.parametrize("ending", ["pkl", "npy"])
def test_a_payload_never_runs_and_is_named(tmp_path, kind, ending):
    mark = tmp_path / "ran"
    data, name = hostile(mark)[kind]
    path = tmp_path / f"file.{ending}"
    if ending == "npy":
        np.save(path, np.array(None, dtype=object), allow_pickle=True)
        whole = path.read_bytes()
        data = whole[: whole.index(b"\n") + 1] + data
    path.write_bytes(data)
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as refused:
        (load_npy if ending == "npy" else load_pickle)(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not mark.exists()


def test_an_array_cannot_ask_for_memory_of_its_own(tmp_path):
    path = tmp_path / "huge.pkl"
    path.write_bytes(b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS'b'\ntR.")
    with pytest.raises(InputError, match="a size of its own"):
        load_pickle(path)
    path.write_bytes(b"cnumpy\nndarray\n((I1000000000000\nttR.")
    with pytest.raises(InputError, match="damaged"):
        load_pickle(path)


class Typed:
    """Pickles as a NumPy type with a state of one's own."""

    def __init__(self, name: str, state: tuple) -> None:
        self.parts = np.dtype, (name, False, True), state

    def __reduce__(self):
        return self.parts


class Filled:
    """Pickles as an array with a state of one's own."""

    def __init__(self, *state) -> None:
        self.parts = np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state

    def __reduce__(self):
        return self.parts


POINTERS = b"A" * 8
NO_FLAGS = (3, "|", None, None, None, -1, -1, 0)
FORGED = {
    "objects from bytes": Filled(1, (1,), Typed("O8", NO_FLAGS), False, POINTERS),
    "objects in a record": Filled(
        1, (1,), Typed("V8", (3, "|", None, ("a",), {"a": (Typed("O8", NO_FLAGS), 0)}, 8, 1, 0)), False, POINTERS
    ),
    "objects in a row": Filled(
        1, (1,), Typed("V8", (3, "|", (Typed("O8", NO_FLAGS), (1,)), None, None, 8, 1, 0)), False, POINTERS
    ),
    "too few objects": Filled(1, (10**12,), Typed("O8", NO_FLAGS), False, [1]),
    "a type of several": Filled(1, (1,), Typed("f4,O", NO_FLAGS), False, POINTERS),
    "too few bytes": Filled(1, (10**12,), Typed("f4", NO_FLAGS), False, POINTERS),
    "no type": Filled(1, (1,), "O", False, POINTERS),
    "fields beyond the record": Filled(
        1, (1,), Typed("V8", (3, "|", None, ("a",), {"a": (Typed("f8", NO_FLAGS), 4)}, 8, 1, 0)), False, POINTERS
    ),
}


@pytest.mark.parametrize("kind", list(FORGED))
def test_forged_types_and_sizes_never_reach_memory(tmp_path, kind):
    path = tmp_path / "forged.pkl"
    path.write_bytes(pickle.dumps(FORGED[kind]))
    with pytest.raises(InputError, match=r"asks for|damaged") as error:
        load_pickle(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(PLAIN)[:-40], b"\x93NUMPY\x01\x00v\x00{"])
def test_damage_is_one_line(tmp_path, data):
    path = tmp_path / "damaged"
    path.write_bytes(data)
    for load in (load_pickle, load_npy):
        with pytest.raises(InputError, match="damaged") as error:
            load(path)
        assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.pkl cannot be read \(No such file"):
        load_pickle(tmp_path / "nothing.pkl")
