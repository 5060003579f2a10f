import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from poselib.model.integral import IMPLEMENTATIONS, cell_positions, soft_argmax

pytestmark = pytest.mark.unit

every = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
ORIGINS = pytest.mark.parametrize("cell_origin", ["center", "corner"])


def by_hand(logits: np.ndarray, depth: int, cell_origin: str) -> np.ndarray:
    """The definition, cell by cell in float64."""
    b, channels, height, width = logits.shape
    volume = logits.astype(np.float64).reshape(b, channels // depth, depth, height, width)
    offset = 0.5 if cell_origin == "center" else 0.0
    result = np.zeros((b, channels // depth, 3))
    for sample, joint in np.ndindex(*volume.shape[:2]):
        p = np.exp(volume[sample, joint] - volume[sample, joint].max())
        p /= p.sum()
        for z, y, x in np.ndindex(*p.shape):
            place = np.array([(x + offset) / width, (y + offset) / height, (z + offset) / depth]) - 0.5
            result[sample, joint] += p[z, y, x] * place
    return result


def random_logits(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return 4 * torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


@every
@ORIGINS
def test_equals_the_definition(implementation: str, cell_origin: str) -> None:
    logits = random_logits(2, 3 * 4, 5, 6)
    out = soft_argmax(logits, 4, cell_origin, implementation)
    np.testing.assert_allclose(out.numpy(), by_hand(logits.numpy(), 4, cell_origin), atol=2e-7)


@every
@pytest.mark.parametrize("joint", [0, 2])
def test_a_single_high_cell_is_the_answer(implementation: str, joint: int) -> None:
    logits = torch.zeros(1, 3 * 4, 5, 6)
    logits[0, joint * 4 + 1, 3, 2] = 100.0
    u, v, z = soft_argmax(logits, 4, "center", implementation)[0, joint].tolist()
    assert (u, v, z) == pytest.approx((2.5 / 6 - 0.5, 3.5 / 5 - 0.5, 1.5 / 4 - 0.5), abs=1e-6)


@every
def test_gradcheck(implementation: str) -> None:
    logits = random_logits(2, 2 * 3, 4, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_argmax(x, 3, "corner", implementation), logits)


VOLUMES = hnp.arrays(np.float64, (1, 2 * 3, 4, 2), elements=st.floats(-50, 50))


@every
@given(values=VOLUMES, shift=st.floats(-1e4, 1e4))
@settings(max_examples=40, deadline=None)
def test_shifting_the_logits_changes_nothing(implementation: str, values: np.ndarray, shift: float) -> None:
    plain = soft_argmax(torch.from_numpy(values), 3, "center", implementation)
    shifted = soft_argmax(torch.from_numpy(values + shift), 3, "center", implementation)
    torch.testing.assert_close(plain, shifted, rtol=0, atol=1e-9)


@every
@given(values=VOLUMES)
@settings(max_examples=40, deadline=None)
def test_each_joints_gradient_sums_to_zero(implementation: str, values: np.ndarray) -> None:
    logits = torch.from_numpy(values).requires_grad_()
    out = soft_argmax(logits, 3, "center", implementation)
    (gradient,) = torch.autograd.grad(out, logits, torch.linspace(-1, 2, out.numel()).double().view_as(out))
    sums = gradient.view(2, -1).sum(dim=1)
    torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-12)


@every
def test_mirroring_the_cells_negates_u_and_nothing_else(implementation: str) -> None:
    logits = random_logits(2, 3 * 4, 5, 7)
    plain = soft_argmax(logits, 4, "center", implementation)
    mirrored = soft_argmax(logits.flip(-1), 4, "center", implementation)
    torch.testing.assert_close(mirrored, plain * torch.tensor([-1.0, 1.0, 1.0]), rtol=0, atol=2e-7)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float32(implementation: str, dtype: torch.dtype) -> None:
    logits = random_logits(1, 2 * 24, 24, 18).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        out = soft_argmax(logits, 24, "center", implementation)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, soft_argmax(logits.float(), 24, "center", "reference"), rtol=0, atol=1e-6)


@every
def test_huge_logits_stay_finite(implementation: str) -> None:
    logits = torch.full((1, 4, 3, 3), 3e38)
    logits[..., 0] = -3e38
    logits.requires_grad_()
    out = soft_argmax(logits, 4, "center", implementation)
    (gradient,) = torch.autograd.grad(out.sum(), logits)
    assert out.isfinite().all()
    assert gradient.isfinite().all()


@every
def test_memory_format_does_not_matter(implementation: str) -> None:
    logits = random_logits(2, 3 * 4, 5, 6)
    last = logits.to(memory_format=torch.channels_last)
    torch.testing.assert_close(soft_argmax(last, 4, "center", implementation), soft_argmax(logits, 4))


@every
@given(cells=st.sets(st.integers(0, 8 * 16 * 4 - 1), min_size=8, max_size=8))
@settings(max_examples=25, deadline=None)
def test_with_centred_cells_a_mirrored_heat_map_decodes_to_the_last_bit(implementation: str, cells: set[int]) -> None:
    """Eight equal cells on a grid of powers of two: no sum is rounded, in whatever order it is taken."""
    logits = torch.full((1, 4, 16, 8), -1e9)
    logits.view(-1)[list(cells)] = 7.0
    plain = soft_argmax(logits, 4, "center", implementation)
    mirrored = soft_argmax(logits.flip(-1), 4, "center", implementation)
    assert torch.equal(mirrored, plain * torch.tensor([-1.0, 1.0, 1.0]))
    w, h, d = np.array([(c % 8, c // 8 % 16, c // 128) for c in cells]).T
    exact = [((w + 0.5) / 8 - 0.5).mean(), ((h + 0.5) / 16 - 0.5).mean(), ((d + 0.5) / 4 - 0.5).mean()]
    assert plain[0, 0].tolist() == exact


@given(cells=st.integers(1, 500))
def test_centred_cells_mirror_to_the_last_bit(cells: int) -> None:
    for dtype in (torch.float32, torch.float64):
        axis = cell_positions(cells, "center", dtype)
        assert torch.equal(axis.flip(0), -axis)


def test_cell_positions() -> None:
    assert cell_positions(4, "center").tolist() == [-0.375, -0.125, 0.125, 0.375]
    assert cell_positions(4, "corner").tolist() == [-0.5, -0.25, 0.0, 0.25]
