import numpy as np
import pytest

from poselib.skeleton import (
    BONES,
    H36M_FROM_MPII,
    H36M_FROM_RAW32,
    H36M_JOINTS,
    MIRROR_PAIRS,
    MPII_JOINTS,
    MPII_MIRROR_PAIRS,
    PARENTS,
    ROOT,
    mirror_permutation,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("names", "pairs"), [(H36M_JOINTS, MIRROR_PAIRS), (MPII_JOINTS, MPII_MIRROR_PAIRS)])
def test_mirror_pairs_are_the_same_joints_of_either_side(names, pairs) -> None:
    assert {frozenset((names[a], names[b])) for a, b in pairs} == {
        frozenset((name, name.replace("left", "right"))) for name in names if name.startswith("left_")
    }


def test_mirroring_twice_is_nothing() -> None:
    order = mirror_permutation()
    np.testing.assert_array_equal(order[order], np.arange(17))
    assert order[ROOT] == ROOT


def test_bones_are_a_tree_that_mirrors_onto_itself() -> None:
    order = mirror_permutation()
    assert len(BONES) == 16
    assert all(parent < child for parent, child in BONES)
    assert {(order[a], order[b]) for a, b in BONES} == set(BONES)
    assert PARENTS[ROOT] == -1


@pytest.mark.parametrize("preset", H36M_FROM_MPII)
def test_mpii_maps_keep_limbs_and_sides(preset: str) -> None:
    for ours, theirs in zip(H36M_JOINTS, H36M_FROM_MPII[preset], strict=True):
        if ours.startswith(("left_", "right_")):
            assert MPII_JOINTS[theirs] == ours


def test_raw_joints_are_seventeen_different_ones() -> None:
    assert len(set(H36M_FROM_RAW32)) == 17
    assert max(H36M_FROM_RAW32) < 32
