"""Where joints are and how spread their heat maps: against plain sums in float64."""

import numpy as np
import pytest
import torch

from poselib.model.integral import cell_positions
from poselib.model.network import PoseNetwork
from poselib.model.spread import answer, joints_and_spread, mean_and_deviation
from poselib.settings import ModelSettings
from poselib.volume import flip_average

pytestmark = pytest.mark.unit


def small(**changes) -> ModelSettings:
    settings = {"backbone": "resnet10", "width": 4, "crop_width": 64, "crop_height": 96, "depth": 8, "ppm_bins": (1, 2)}
    settings |= {"decoder_channels": 8, "decoder_layers": 2} | changes
    return ModelSettings(**settings)


def network(**changes) -> PoseNetwork:
    torch.manual_seed(0)
    made = PoseNetwork(small(**changes)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn_like(parameter)  # heat maps that are not flat
    return made


@pytest.mark.parametrize("origin", ["center", "corner"])
def test_moments_are_those_of_plain_sums(origin):
    depth, height, width = 5, 7, 6
    logits = 3 * torch.randn(2, 17 * depth, height, width, generator=torch.Generator().manual_seed(1))
    mean, deviation = mean_and_deviation(logits, depth, origin)
    p = np.exp(logits.double().numpy()).reshape(2, 17, depth, height, width)
    p /= p.sum(axis=(2, 3, 4), keepdims=True)
    places = [cell_positions(n, origin).double().numpy() for n in (width, height, depth)]
    grid = np.stack(np.broadcast_arrays(places[0], places[1][:, None], places[2][:, None, None]), axis=-1)
    first = (p[..., None] * grid).sum(axis=(2, 3, 4))
    second = (p[..., None] * (grid - first[:, :, None, None, None]) ** 2).sum(axis=(2, 3, 4))
    np.testing.assert_allclose(mean.numpy(), first, atol=1e-6)
    np.testing.assert_allclose(deviation.numpy(), np.sqrt(second), atol=1e-6)


def test_one_cell_has_no_spread_and_a_flat_map_that_of_the_volume():
    logits = torch.zeros(1, 17 * 4, 8, 8)
    _, flat = mean_and_deviation(logits, 4)
    np.testing.assert_allclose(flat[0, 0].numpy(), np.sqrt([(1 - 1 / n**2) / 12 for n in (8, 8, 4)]), rtol=1e-5)
    logits[:, 1, 2, 3] = 1e4
    mean, single = mean_and_deviation(logits, 4)
    assert single[0, 0].abs().max() == 0
    np.testing.assert_allclose(mean[0, 0].numpy(), [3.5 / 8 - 0.5, 2.5 / 8 - 0.5, 1.5 / 4 - 0.5])


@pytest.mark.parametrize("changes", [{}, {"inference": "mode"}, {"temperature": 2.0}, {"head": "regression"}])
def test_joints_are_those_of_the_network(changes):
    made = network(**changes)
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(2))
    joints, deviation = joints_and_spread(made, images)
    with torch.no_grad():
        torch.testing.assert_close(joints, made(images), atol=1e-5, rtol=1e-5)
    if made.decoder is None:
        assert deviation.isnan().all()
    else:
        assert ((deviation > 0) & (deviation < 0.5)).all()


def test_the_flip_test_averages_joints_and_spreads():
    made = network()
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(2))
    (one, spread), (other, of_other) = (joints_and_spread(made, shown) for shown in (images, images.flip(-1)))
    joints, deviation = answer(made, images, bf16=False, flip_test=True)
    torch.testing.assert_close(joints, flip_average(one, other))
    torch.testing.assert_close(deviation[:, 1], (spread[:, 1] + of_other[:, 4]) / 2)  # the hips
    same, nothing = answer(made, images, bf16=False, flip_test=True, spread=False)
    torch.testing.assert_close(same, joints, atol=1e-5, rtol=1e-5)
    assert nothing.isnan().all()
    rounded, _ = answer(made, images, bf16=True, flip_test=False)
    assert 0 < (rounded - one).abs().max() < 0.05


def test_the_logits_that_come_in_stay_as_they_are():
    logits = torch.randn(1, 17 * 2, 3, 3)
    before = logits.clone()
    mean_and_deviation(logits, 2)
    assert torch.equal(logits, before)
