"""YAML files and command lines to frozen settings and back. The one place that parses settings.

Later words win: dataclass defaults, then the YAML files in the order given, then single keys of the command line. A
YAML may name others as its `base:`, one or a list, and hold only what differs; a base is looked for beside the file.
The folder `configs` of the package is searched too, so `--config demo.yaml` works anywhere.
"""

import argparse
import dataclasses
import difflib
import re
import typing
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

import configs
from cluster.keys import fields, switches, type_in_words, unknown_key, yaml_key
from poselib.errors import InputError

Settings = TypeVar("Settings")
Origins = dict[str, str]
"""Which file, or `command line`, last set each dotted key."""


class SettingsError(InputError):
    """A key is unknown, or its value is of the wrong type or out of range."""


def parse(cls: type[Settings], argv: Sequence[str], prog: str = "pose", epilog: str = "") -> Settings:
    """Settings from a command line: any number of `--config FILE`, then single keys `--group.key value`.

    A class with a method `with_given` is told which keys were given; the rest are defaults.

    Dashes in keys stand for underscores; a key that takes true or false and stands alone is true: `--dry-run`.

    Raises:
        SettingsError: one line that names the key, where it stands, and what would be right.
    """
    files, rest = _split_config(list(argv))
    values: dict[str, Any] = {}
    origins: Origins = {}
    for file in files:
        _merge(values, read_yaml(Path(file), cls, origins))
    rest = _python_options(rest, cls)
    origins |= {word[2:].split("=")[0]: "command line" for word in rest if word.startswith("--")}
    settings = _build(cls, values, rest, _parser(cls, prog, epilog), origins)
    note: Callable[[Container[str]], Settings] | None = getattr(settings, "with_given", None)
    return settings if note is None else note(origins.keys())


def load(cls: type[Settings], path: Path) -> Settings:
    """Settings from one YAML file alone; errors as in `parse`."""
    return parse(cls, ["--config", str(path)])


def construct(cls: type[Settings], text: str, origin: str) -> Settings:
    """Settings from YAML text, such as `dump` writes; `origin` stands in errors."""
    values = _python_names(yaml.safe_load(text))
    return _build(cls, values, [], _parser(cls, "pose", ""), {key: origin for key, _ in _leaves(values)})


def dump(settings: Any) -> str:
    """Settings as YAML that `load` reads back, every key spelled out."""
    return yaml.safe_dump(_plain(settings), sort_keys=False)


def flatten(settings: Any) -> dict[str, Any]:
    """Settings as flat dotted keys: `{"optimizer.lr": 1e-4, ...}`."""
    return dict(_leaves(_plain(settings)))


def read_yaml(path: Path, cls: type, origins: Origins) -> dict[str, Any]:
    """The mapping in a YAML file and its bases, keys checked against `cls` and their origin noted."""
    path = _find(path)
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise SettingsError(f"{path}{f', line {mark.line + 1}' if mark else ''}: not valid YAML") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected keys and values, found {type(values).__name__}")
    merged: dict[str, Any] = {}
    for base in _bases(path, values.pop("base", None)):
        _merge(merged, read_yaml(base, cls, origins))
    values = _python_names(values)
    known = fields(cls)
    groups = {group for key in known for group in _groups(key)}
    for key, value in _leaves(values, known):
        if key in groups and value != {}:
            raise SettingsError(f"{path}: {key}: expected keys and values, found {value!r}")
        if key not in groups and key not in known:
            raise SettingsError(f"{path}: {unknown_key(key, cls)}")
        origins[key] = str(path)
    return _merge(merged, values)


def _bases(path: Path, named: Any) -> list[Path]:
    """The files that a YAML names as its `base:`: beside it, or of the package."""
    names = named if isinstance(named, list) else [named] if named else []
    beside = [path.parent / str(name) for name in names]
    return [near if near.is_file() else Path(str(name)) for near, name in zip(beside, names, strict=True)]


def _find(path: Path) -> Path:
    """The file itself, or the one of that name that comes with the package."""
    folder = Path(configs.__file__).parent
    for candidate in (path, folder / path):
        if candidate.is_file():
            return candidate
    names = sorted(str(found.relative_to(folder)) for found in folder.rglob("*.yaml"))
    near = ", ".join(difflib.get_close_matches(str(path), names, n=3, cutoff=0.0))
    raise SettingsError(f"no such settings file: {path}; the nearest of the package's own are {near}")


def _split_config(argv: list[str]) -> tuple[list[str], list[str]]:
    """The values of `--config`, and everything else."""
    files, rest = [], []
    words = iter(argv)
    for word in words:
        if word == "--config":
            value = next(words, None)
            if value is None:
                raise SettingsError("--config needs a file")
            files.append(value)
        elif word.startswith("--config="):
            files.append(word.partition("=")[2])
        else:
            rest.append(word)
    return files, rest


def _parser(cls: type, prog: str, epilog: str) -> jsonargparse.ArgumentParser:
    """A parser with one option per key of `cls`; its help is the docstrings', and silent of `hidden` fields."""

    class Parser(jsonargparse.ArgumentParser):
        def format_help(self, formatter: Any = None) -> str:
            text = re.sub(r"(--[\w.]+)_(?=[ =])", r"\1", super().format_help(formatter))
            text = re.sub(r"\n  --[\w.]+ CONFIG +Path to a configuration file\.", "", text)
            # argparse would fold the examples like prose, so they are put behind it.
            return f"{text}\n{epilog}\n" if epilog else text

    parser = Parser(
        prog=prog,
        usage=f"{prog} [--config FILE] [--key value] [--group.key value] ... [--debug]",
        description=(cls.__doc__ or "").split("\n\n")[0],
        exit_on_error=False,
        formatter_class=jsonargparse.DefaultHelpFormatter,
    )
    parser.add_class_arguments(cls, None)
    hidden = {field.name for field in dataclasses.fields(cls) if field.metadata.get("hidden")}
    for action in parser._actions:
        if action.dest in hidden:
            action.help = argparse.SUPPRESS
    return parser


def _build(
    cls: type[Settings],
    values: dict[str, Any],
    words: list[str],
    parser: jsonargparse.ArgumentParser,
    origins: Origins,
) -> Settings:
    """Settings from the values of files and the words of a command line."""
    try:
        namespace = parser.parse_object(_complete(values, words, cls), defaults=True) if values else None
        parsed = parser.parse_args(words, namespace=namespace)
    except jsonargparse.ArgumentError as error:
        raise SettingsError(_explain(str(error), cls, origins)) from error
    return _construct(cls, parsed.as_dict(), origins)


def _complete(values: dict[str, Any], words: list[str], cls: type) -> dict[str, Any]:
    """The values of files with the required keys of the command line: the parser wants these with the files'."""
    complete: dict[str, Any] = _merge({}, values)
    for word, after in zip(words, [*words, ""][1:], strict=True):
        key, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and key in _required(cls):
            *groups, name = key.split(".")
            leaf: dict[str, Any] = {name: value if equals else after}
            for group in reversed(groups):
                leaf = {group: leaf}
            _merge(complete, leaf)
    return complete


def _required(cls: type, prefix: str = "") -> Iterator[str]:
    """Dotted keys that have no default."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.default is field.default_factory is dataclasses.MISSING:
            hint = hints[field.name]
            if dataclasses.is_dataclass(hint):
                yield from _required(typing.cast(type, hint), f"{prefix}{field.name}.")
            else:
                yield f"{prefix}{field.name}"


def _construct(cls: type[Settings], values: Mapping[str, Any], origins: Origins, prefix: str = "") -> Settings:
    """The dataclass from nested values; a range error is prefixed with the key's group and origin."""
    hints = typing.get_type_hints(cls)
    arguments = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping):
            value = _construct(typing.cast(type, hints[name]), value, origins, f"{prefix}{name}.")
        arguments[name] = value
    try:
        return cls(**arguments)
    except ValueError as error:
        key = f"{prefix}{str(error).split(' ')[0]}"
        in_group = [origin for known, origin in origins.items() if known.startswith(prefix)]
        origin = origins.get(key) or origins.get(f"{key}_") or (in_group or ["defaults"])[-1]
        raise SettingsError(f"{origin}: {prefix}{error}") from error


def _explain(message: str, cls: type, origins: Origins) -> str:
    """jsonargparse's words as one line that names the key, its origin and the nearest valid one."""
    unknown = re.search(r"[Uu]nrecognized arguments: --([\w.]+)", message)
    if unknown:
        return f"command line: {unknown_key(unknown[1], cls)}"
    wrong = re.search(r'Parser key "([\w.]+)":\s*(.*)', message, re.DOTALL)
    if wrong:
        reason = re.sub(r"<class '(\w+)'>", r"\1", " ".join(wrong[2].split()))
        reason = re.sub(r"Expected an? typing\.Literal\[(.*?)\]", r"expected one of \1", reason)
        listed = re.fullmatch(
            r"(?:Does not validate against any .*Given value|Expected a tuple\. Got value): (.*)", reason
        )
        if listed:
            reason = f"expected {type_in_words(fields(cls).get(wrong[1]))}. Got value: {listed[1]}"
        origin = next((o for k, o in origins.items() if k == wrong[1] or k.startswith(f"{wrong[1]}.")), "command line")
        return f"{origin}: {yaml_key(wrong[1])}: {reason}"
    return " ".join(message.split())


def _groups(key: str) -> Iterator[str]:
    parts = key.split(".")
    yield from (".".join(parts[:n]) for n in range(1, len(parts)))


def _python_options(words: list[str], cls: type) -> list[str]:
    """Options as the class spells its keys: `--batch.global` is `--batch.global_`, `--dry-run` is `--dry_run=true`."""
    known, alone, spelled = fields(cls), switches(cls), []
    for word, after in zip(words, [*words, "--"][1:], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = f"--{name[2:].replace('-', '_')}"
            name = f"{name}_" if f"{name[2:]}_" in known else name
            if not equals and name[2:] in alone and after.startswith("-"):
                equals, value = "=", "true"
        spelled.append(f"{name}{equals}{value}")
    return spelled


def _python_names(values: dict[str, Any]) -> dict[str, Any]:
    """Keys that are Python keywords with the underscore that the dataclasses give them."""
    named = {f"{key}_" if key == "global" else str(key): value for key, value in values.items()}
    return {key: _python_names(value) if isinstance(value, dict) else value for key, value in named.items()}


def _plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as what YAML holds."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name.rstrip("_"): _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _leaves(values: Mapping[str, Any], whole: Container[str] = (), prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; a key in `whole` is a setting that is itself a mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value and f"{prefix}{key}" not in whole:
            yield from _leaves(value, whole, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested update, in place."""
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value
    return into
