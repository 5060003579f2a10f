"""What a search may choose from: YAML to a typed space. No torch and no Ray here.

Each entry of `space:` names a setting of the run, or several that go together, and what it may be:

    optimizer.lr: {from: 1e-5, to: 1e-3, log: true}          a range, of whole numbers where both ends are
    batch.micro: {from: 8, to: 32, step: 8}                  in steps
    model.ppm_bins: [[1, 2, 3, 6], [1, 6, 12, 18], null]     a choice
    model.crop_width, model.crop_height: [[256, 256], [288, 384]]
    model.depth: {by: model.crop_height, is: {256: [48, 64], 384: [72, 96]}}    what follows from another choice
"""

import difflib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from cluster.config import SettingsError
from cluster.keys import keys
from cluster.settings import Run

Values = dict[str, Any]
"""Dotted settings of one trial, and nothing that is the same in all."""
_NOT_SEARCHED: Final = ("name", "runs_dir", "tracking.", "engine.device", "restart.")


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included; `step` 0 is continuous."""

    low: float
    high: float
    log: bool = False
    step: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def clip(self, value: float) -> float:
        """The nearest number of the range."""
        value = min(max(value, self.low), self.high)
        if self.step:
            value = self.low + round((value - self.low) / self.step) * self.step
        return round(value) if self.whole else value

    def listed(self) -> list[float]:
        """Every number of a range in steps; both ends of another."""
        if not self.step:
            return [self.low, self.high]
        return [self.clip(self.low + n * self.step) for n in range(int((self.high - self.low) / self.step + 1e-9) + 1)]


@dataclass(frozen=True)
class Dependent:
    """A choice or range of its own for each value of another setting."""

    by: str
    branches: Mapping[str, Choice | Range]


@dataclass(frozen=True)
class Dimension:
    """Settings that are chosen together, and from what."""

    keys: tuple[str, ...]
    domain: Choice | Range | Dependent


Suggest = Callable[[str, Choice | Range], Any]
"""Chooses from a domain; the name tells dimensions, and branches of one, apart."""


@dataclass(frozen=True)
class Space:
    """Everything that is searched; each dimension stands behind the one that it depends on."""

    dimensions: tuple[Dimension, ...]

    def draw(self, suggest: Suggest) -> Values:
        """One configuration, asked for dimension by dimension."""
        values: Values = {}
        for dimension in self.dimensions:
            name, domain = _resolve(dimension, values)
            values |= assign(dimension.keys, suggest(name, domain))
        return values

    def all(self) -> Iterator[Values]:
        """Every combination; of ranges without step the ends alone."""
        yield from _combinations(self.dimensions, {})

    def part(self, keys: tuple[str, ...]) -> "Space":
        """The dimensions of settings that begin with one of these, and those that they depend on."""
        kept = [one for one in self.dimensions if any(key.startswith(keys) for key in one.keys)]
        for one in reversed(self.dimensions):
            needed = {later.domain.by for later in kept if isinstance(later.domain, Dependent)}
            if one not in kept and needed & set(one.keys):
                kept.append(one)
        return Space(tuple(one for one in self.dimensions if one in kept))

    def diagonals(self) -> Iterator[Values]:
        """Configurations in which every value of every list that depends on no other stands at least once."""
        domains = [one.domain for one in self.dimensions if not isinstance(one.domain, Dependent)]
        for n in range(max(len(list_domain(domain)) for domain in domains)):
            yield self.draw(partial(_nth, n))


def _nth(n: int, _: str, domain: Choice | Range) -> Any:
    return list_domain(domain)[n % len(list_domain(domain))]


def read_space(written: Mapping[str, Any]) -> Space:
    """The space that stands in a YAML.

    Raises:
        SettingsError: a key is no setting, what it may be is empty or not understood, or it depends on none or itself.
    """
    if not written:
        raise SettingsError("space: is empty; name a setting and what it may be, as in `optimizer.lr: [1e-4, 3e-4]`")
    dimensions, seen = [], set[str]()
    for entry, domain in written.items():
        names = tuple(name.strip() for name in str(entry).split(","))
        for name in names:
            _check_key(name)
            if name in seen:
                raise SettingsError(f"space: {name} stands there twice")
            seen.add(name)
        dimensions.append(Dimension(names, _read_domain(names, domain)))
    return Space(_in_order(dimensions))


def label(value: Any) -> str:
    """A value as one word: what choices are known by in Optuna, in Ray and as `is:` of another setting."""
    return value if isinstance(value, str) else json.dumps(value)


def short(value: Any) -> str:
    """A value for people: floats in 4 digits."""
    return f"{value:.4g}" if isinstance(value, float) else label(value)


def list_domain(domain: Choice | Range) -> list[Any]:
    """A domain's values; of a range without step its ends."""
    return list(domain.values) if isinstance(domain, Choice) else domain.listed()


def assign(names: tuple[str, ...], value: Any) -> Values:
    """A dimension's value as settings."""
    return {names[0]: value} if len(names) == 1 else dict(zip(names, value, strict=True))


def _combinations(left: tuple[Dimension, ...], values: Values) -> Iterator[Values]:
    if not left:
        yield values
        return
    _, domain = _resolve(left[0], values)
    for value in list_domain(domain):
        yield from _combinations(left[1:], values | assign(left[0].keys, value))


def _resolve(dimension: Dimension, values: Values) -> tuple[str, Choice | Range]:
    """The domain that counts beside what has been chosen, and its name."""
    name, domain = ", ".join(dimension.keys), dimension.domain
    if not isinstance(domain, Dependent):
        return name, domain
    chosen = label(values[domain.by])
    return f"{name} where {domain.by} is {chosen}", domain.branches[chosen]


def _check_key(key: str) -> None:
    known = keys(Run)
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
        raise SettingsError(f"space: unknown key {key!r}; the nearest setting of a run is {near!r}")
    if key.startswith(_NOT_SEARCHED):
        raise SettingsError(f"space: {key} cannot be searched: it names a place, and changes no result")


def _read_domain(names: tuple[str, ...], written: Any) -> Choice | Range | Dependent:
    where = f"space: {', '.join(names)}"
    if isinstance(written, Mapping) and "by" in written:
        return _read_dependent(names, where, written)
    return _read_free(names, where, written)


def _read_dependent(names: tuple[str, ...], where: str, written: Mapping[str, Any]) -> Dependent:
    branches = written.get("is")
    if set(written) != {"by", "is"} or not isinstance(branches, Mapping) or not branches:
        raise SettingsError(f"{where}: expected `by:` another setting of the space and `is:` a domain for each value")
    domains = {_branch(key): _read_free(names, f"{where}, {key}", one) for key, one in branches.items()}
    if len(domains) < len(branches):
        raise SettingsError(f"{where}: `is:` holds a value twice")
    return Dependent(str(written["by"]), domains)


def _branch(key: Any) -> str:
    """A key of `is:` as the label of the value that it stands for. Keys come as text, or as YAML reads them."""
    words = {"None": "null", "True": "true", "False": "false"}
    text = words.get(str(key), str(key))
    return text if text.lstrip("-").isdecimal() else label(_plain_number(text))


def _read_free(names: tuple[str, ...], where: str, written: Any) -> Choice | Range:
    if isinstance(written, list):
        return _read_choice(names, where, written)
    if isinstance(written, Mapping):
        return _read_range(names, where, written)
    raise SettingsError(f"{where}: expected a list of values or `from:` and `to:`, found {written!r}")


def _read_choice(names: tuple[str, ...], where: str, written: list[Any]) -> Choice:
    if not written:
        raise SettingsError(f"{where}: an empty list; name at least one value")
    if len({label(value) for value in written}) < len(written):
        raise SettingsError(f"{where}: a value stands there twice")
    for value in written:
        if len(names) > 1 and (not isinstance(value, list) or len(value) != len(names)):
            raise SettingsError(f"{where}: expected lists of {len(names)} values, one per setting, found {value!r}")
    return Choice(tuple(_plain_number(value) for value in written))


def _read_range(names: tuple[str, ...], where: str, written: Mapping[str, Any]) -> Range:
    strange = set(written) - {"from", "to", "log", "step"}
    if strange or not {"from", "to"} <= set(written) or len(names) > 1:
        raise SettingsError(f"{where}: expected a list of values, or from, to and perhaps log or step for one setting")
    low, high, step = (_plain_number(written.get(name, 0)) for name in ("from", "to", "step"))
    log = written.get("log", False)
    numbers = all(
        isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in (low, high, step)
    )
    if not numbers or not isinstance(log, bool):
        raise SettingsError(f"{where}: from, to and step must be numbers, log true or false")
    if not low < high:
        raise SettingsError(f"{where}: from {low} to {high} is empty; `to` must be larger")
    if step < 0 or step > high - low:
        raise SettingsError(f"{where}: step must lie in 0..{high - low:g}, not {step}")
    if log and (low <= 0 or step):
        raise SettingsError(f"{where}: log needs `from` above 0 and no step")
    return Range(low, high, log, step)


def _plain_number(value: Any) -> Any:
    """YAML reads 1e-4 as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _in_order(dimensions: list[Dimension]) -> tuple[Dimension, ...]:
    """Dimensions behind those that they depend on."""
    known: dict[str, Dimension] = {key: one for one in dimensions for key in one.keys}
    for one in dimensions:
        if isinstance(one.domain, Dependent):
            _check_branches(one, one.domain, known)
    ordered: list[Dimension] = []
    while len(ordered) < len(dimensions):
        done = {key for one in ordered for key in one.keys}
        ready = [
            one
            for one in dimensions
            if one not in ordered and (not isinstance(one.domain, Dependent) or one.domain.by in done)
        ]
        if not ready:
            waiting = [", ".join(one.keys) for one in dimensions if one not in ordered]
            raise SettingsError(f"space: {'; '.join(waiting)}: depend on each other in a circle")
        ordered += ready
    return tuple(ordered)


def _check_branches(one: Dimension, domain: Dependent, known: Mapping[str, Dimension]) -> None:
    """A branch for every value of the setting that decides, and no other."""
    where, other = f"space: {', '.join(one.keys)}", known.get(domain.by)
    if other is None:
        raise SettingsError(f"{where}: depends on {domain.by}, which is not in the space")
    domains = other.domain.branches.values() if isinstance(other.domain, Dependent) else [other.domain]
    if any(isinstance(d, Range) and not d.step for d in domains):
        raise SettingsError(f"{where}: depends on {domain.by}, which must be a list of values")
    place = other.keys.index(domain.by)
    values = [value for d in domains for value in list_domain(d)]
    wanted = {label(value[place] if len(other.keys) > 1 else value) for value in values}
    if wanted != set(domain.branches):
        said, meant = ", ".join(sorted(domain.branches)), ", ".join(sorted(wanted))
        raise SettingsError(f"{where}: has branches for {domain.by} = {said}, but it may be {meant}")
