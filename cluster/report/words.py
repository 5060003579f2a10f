"""What a report says in words: differences, how sure they are, and calibrations."""

from typing import Final

from cluster.report.figures import Difference, Sureness
from cluster.words import signed
from poselib.calibration import Calibration

_HIGHER_IS_BETTER: Final = ("pck_150", "auc")


def change(key: str, found: Difference) -> str:
    """`−3.2 [−5.1, −1.4]`."""
    said = signed(key, found.mean)
    if found.low is None or found.high is None:
        return said
    return f"{said} [{signed(key, found.low)}, {signed(key, found.high)}]"


def verdict(key: str, found: Difference) -> tuple[str, str]:
    """A class and a word: a difference counts only where its interval leaves out 0."""
    if found.low is None or found.high is None:
        return "", ""
    if found.low <= 0 <= found.high:
        return "", "no clear difference"
    better = (found.mean > 0) == (key in _HIGHER_IS_BETTER)
    return ("better", "better") if better else ("worse", "worse")


def sureness_words(sureness: Sureness, many: bool) -> str:
    """What the intervals stand on; nothing where there are none."""
    if sureness.units < 2:
        return ""
    kind = "Paired bootstrap" if many else "Bootstrap"
    text = f"{kind}, 95 %: {sureness.units} {'takes' if sureness.by_take else 'single poses'} are resampled"
    if sureness.by_take:
        return f"{text}, each with all its cameras and frames, for these resemble each other."
    return f"{text}. There are too few takes to resample these, so the intervals are narrower than they should be."


def calibration_words(found: Calibration | None) -> dict[str, str]:
    """A calibration's number, and what it means."""
    if found is None:
        return {"error": "–", "words": "This head has no heat maps, so it foretells no spread."}
    ratio, rank = found.ratio, found.rank_correlation
    size = "larger" if ratio > 1 else "smaller"
    return {
        "error": f"{found.error:.2f}",
        "words": (
            f"True errors are {ratio:.2f} times the predicted spread, {size} than foretold. Rank correlation {rank:.2f}"
            f" (1: a larger spread always means a larger error; 0: it says nothing)."
        ),
    }
