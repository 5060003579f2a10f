"""Pickles and object arrays from strangers, read without running anything of theirs.

A pickle is a program: it names functions and calls them. This reader knows the five names that NumPy's arrays and
scalars use, each replaced by a strict function of its own, and plain containers; any other name is refused before it is
looked up, so no module of it is imported either.
"""

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from poselib.errors import InputError


class _Refused(Exception):
    """A pickle names something that is not admitted; its text is the name."""


_ARRAY: Final = object()
"""Stands for `numpy.ndarray`, which array pickles only pass on to `_reconstruct`; it cannot be called."""

_PLAIN_TYPE: Final = re.compile(r"[biufcSUVO]\d{0,9}")


class _Type:
    """Stands for `numpy.dtype` and builds one from scratch.

    NumPy's own takes internal flags from the pickle: with them cleared, the bytes of an array pass for pointers.
    """

    def __init__(self, name: str, align: Any = False, copy: Any = True) -> None:
        if not isinstance(name, str) or not _PLAIN_TYPE.fullmatch(name):
            raise _Refused(f"a NumPy type {name!r}")
        self.name = name
        self.state: tuple[Any, ...] = (3, "|", None, None, None, -1, -1, 0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def build(self) -> np.dtype:
        """The type itself. Objects stand alone, never within a record."""
        _, order, base, names, fields, size = self.state[:6]
        if names:
            kinds = [_built(fields[name][0]) for name in names]
            offsets = [int(fields[name][1]) for name in names]
            built = np.dtype({"names": list(names), "formats": kinds, "offsets": offsets, "itemsize": int(size)})
        elif base is not None:
            built = np.dtype((_built(base[0]), tuple(base[1])))
        else:
            return np.dtype(self.name).newbyteorder(order)
        if built.hasobject:
            raise _Refused("a NumPy record that holds objects")
        return built


class _Array(np.ndarray):
    """An array whose content is checked against its type and shape before NumPy takes it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        built = _built(kind)
        if built.hasobject and (not isinstance(data, list) or len(data) != math.prod(shape)):
            raise _Refused("an array of objects whose content is no list of its size")
        if isinstance(data, str):  # Python 2's bytes
            data = data.encode("latin1")
        content: Any = (1, shape, built, bool(fortran), data)
        super().__setstate__(content)


def _built(kind: Any) -> np.dtype:
    if not isinstance(kind, _Type):
        raise _Refused("an array without a NumPy type")
    return kind.build()


def _reconstruct(kind: object, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """An empty array that the pickle then fills. `shape` is always `(0,)`: no pickle sizes an array here."""
    if kind is not _ARRAY or shape != (0,):
        raise _Refused("an array of another class or with a size of its own")
    return np.empty(0, np.int8).view(_Array)


def _frombuffer(buffer: bytes, kind: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """An array over bytes that the pickle holds, as protocol 5 writes it."""
    return np.frombuffer(buffer, _built(kind)).reshape(shape, order=order)


def _scalar(kind: Any, data: bytes | str) -> Any:
    """A NumPy scalar from its bytes."""
    built = _built(kind)
    if built.hasobject:
        raise _Refused("a NumPy scalar that holds an object")
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, built, 1)[0]


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes, as Python 3 writes them for Python 2; no other codec is looked up."""
    if encoding != "latin1":
        raise _Refused(f"the codec {encoding}")
    return text.encode("latin1")


_CORES: Final = ("numpy.core", "numpy._core")
_ADMITTED: Final[dict[tuple[str, str], Any]] = {
    ("numpy", "ndarray"): _ARRAY,
    ("numpy", "dtype"): _Type,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _frombuffer for core in _CORES},
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): OrderedDict,
    **{(home, kind.__name__): kind for home in ("builtins", "__builtin__") for kind in (set, frozenset, complex)},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def load_pickle(path: Path) -> Any:
    """The content of a pickle that holds NumPy arrays, plain containers, numbers and text, and nothing else.

    Raises:
        InputError: missing or damaged, or it names anything else; nothing of it has run then.
    """
    return _load(path, _unpickle)


def load_npy(path: Path) -> np.ndarray:
    """The array in a `.npy` file; arrays of objects under the rules of `load_pickle`.

    Raises:
        InputError: as `load_pickle`.
    """
    array = _load(path, _read_npy)
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds no array behind its header")
    return np.asarray(array)


def _load(path: Path, read: Callable[[BinaryIO], Any]) -> Any:
    try:
        with path.open("rb") as stream:
            return read(stream)
    except _Refused as refused:
        raise InputError(
            f"{path} asks for {refused}: only NumPy arrays and plain containers are read, nothing was run"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # damaged bytes make the unpickler raise whatever its instructions run into
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is damaged or no such file ({type(error).__name__}: {reason})") from error


def _unpickle(stream: BinaryIO) -> Any:
    return _Unpickler(stream, encoding="latin1").load()


def _read_npy(stream: BinaryIO) -> Any:
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"format version {version}")
    _, _, dtype = read_header(stream)
    if dtype.hasobject:
        return _unpickle(stream)
    stream.seek(0)
    return np.load(stream, allow_pickle=False)
