"""Figures and settings as people read them."""

import pytest

from cluster.words import amount, plain, signed, unit

pytestmark = pytest.mark.unit


def test_figures_have_one_decimal_of_mm_or_percent():
    assert (amount("mpjpe_mm", 61.26), unit("mpjpe_mm")) == ("61.3", "mm")
    assert (amount("auc", 0.6126), unit("auc")) == ("61.3", "%")
    assert amount("auc", None) == "–"


@pytest.mark.parametrize(("value", "said"), [(0.5, "+0.5"), (-0.5, "−0.5"), (-0.04, "0.0"), (0.04, "0.0")])
def test_differences_have_a_sign_unless_they_round_to_nothing(value, said):
    assert signed("mpjpe_mm", value) == said
    assert signed("auc", value / 100) == said


@pytest.mark.parametrize(
    ("value", "said"), [(True, "yes"), (False, "no"), (["S9", "S11"], "S9, S11"), ([], "none"), ("", "none"), (0, "0")]
)
def test_values_of_a_card_are_words(value, said):
    assert plain(value) == said
