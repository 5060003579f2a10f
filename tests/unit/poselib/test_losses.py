import pytest
import torch

from poselib.losses import masked_l1

pytestmark = pytest.mark.unit


def test_sums_coordinates_and_averages_samples() -> None:
    predicted, target = torch.zeros(2, 17, 3), torch.full((2, 17, 3), 0.25)
    assert masked_l1(predicted, target, torch.ones(2, 17, 3)).item() == pytest.approx(17 * 3 * 0.25)


def test_coordinates_without_weight_do_not_matter() -> None:
    predicted = torch.zeros(2, 17, 3, requires_grad=True)
    target, weights = torch.full((2, 17, 3), 0.5), torch.ones(2, 17, 3)
    target[0, 3], weights[0, 3] = 1e6, 0
    weights[1, :, 2] = 0
    masked_l1(predicted, target, weights).backward()
    assert predicted.grad is not None
    torch.testing.assert_close(predicted.grad, -weights / 2)


def test_the_mean_of_halves_is_the_whole_whatever_is_masked() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.rand(2, 6, 17, 3, generator=generator)
    weights = torch.zeros(6, 17, 3)
    weights[:2] = 1
    whole = masked_l1(predicted, target, weights)
    halves = [masked_l1(predicted[part], target[part], weights[part]) for part in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(whole, (halves[0] + halves[1]) / 2)
