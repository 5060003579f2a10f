"""The keys of a settings class, their types, and how to speak of them. No torch here."""

import dataclasses
import difflib
import typing
from typing import Any, Final

TRUTHS: Final = ("true", "false", "yes", "no")
"""What a command line may say of a switch."""


def keys(cls: type) -> list[str]:
    """Every dotted key of a settings class, as written in YAML."""
    return [yaml_key(key) for key in fields(cls)]


def fields(cls: type, prefix: str = "") -> dict[str, Any]:
    """Dotted keys in Python's spelling (`batch.global_`), with their types."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            found |= fields(typing.cast(type, hint), f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = hint
    return found


def switches(cls: type) -> set[str]:
    """The keys that take true or false, and may stand alone on a command line."""
    return {key for key, hint in fields(cls).items() if hint is bool}


def yaml_key(key: str) -> str:
    """A dotted key of Python's spelling as YAML and the command line have it: no trailing underscores."""
    return ".".join(part.rstrip("_") for part in key.split("."))


def unknown_key(key: str, cls: type) -> str:
    """The sentence about a key that does not exist."""
    near = difflib.get_close_matches(key, keys(cls), n=1, cutoff=0.0)
    return f"unknown key {yaml_key(key)!r}; the nearest valid key is {near[0]!r}"


def type_in_words(hint: Any) -> str:
    """What a key takes, as it is written in YAML: `[int, ...] or null`."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, inner))
    if typing.get_origin(hint) is tuple:
        rest = ", ...]" if inner[-1] is ... else "]"
        return f"[{', '.join(type_in_words(item) for item in inner if item is not ...)}{rest}"
    if inner:
        return " or ".join(map(type_in_words, inner))
    return "null" if hint is type(None) else str(getattr(hint, "__name__", hint))
