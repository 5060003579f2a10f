"""How figures and settings are written for people, on terminals and pages alike."""

from typing import Any


def unit(key: str) -> str:
    """The unit of a figure, by its key in `score.json`: mm, or percent for shares."""
    return "mm" if key.endswith("_mm") else "%"


def amount(key: str, value: float | None) -> str:
    """A figure in its unit, with one decimal; a dash where there is none."""
    return "–" if value is None else f"{_scaled(key, value):.1f}"


def signed(key: str, value: float) -> str:
    """A difference of figures in their unit, with its sign; one that rounds to 0 has none."""
    said = f"{_scaled(key, value):+.1f}"
    return "0.0" if float(said) == 0 else said.replace("-", "−")


def plain(value: Any) -> str:
    """A value of a protocol card."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text or "none"


def _scaled(key: str, value: float) -> float:
    return value if unit(key) == "mm" else 100 * value
