from dataclasses import replace

import numpy as np
import pytest
import torch

from poselib.losses import compute_loss, expected_l1, heatmap_l2, masked_l1
from poselib.model import PoseNetwork
from poselib.model.integral import cell_positions, soft_argmax
from poselib.model.sampling import draw_cells
from poselib.settings import LossSettings, ModelSettings

pytestmark = pytest.mark.unit

TINY = ModelSettings(
    backbone="resnet18",
    width=8,
    crop_width=64,
    crop_height=64,
    depth=8,
    ppm_bins=None,
    decoder_channels=16,
    decoder_layers=2,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def enumerated(
    logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor, averaged: int, entropy: float
) -> tuple[float, torch.Tensor]:
    """Expected L1 of a joint `d h w` and its gradient, less the entropy's, by enumeration in float64.

    The error is a sum over axes, so what counts is the sum of the cells' indices along each: its distribution is the
    axis' marginal folded with itself.
    """
    leaf = logits.detach().double().clone().requires_grad_()
    p = leaf.flatten().softmax(dim=0).view(leaf.shape)
    loss = torch.zeros((), dtype=torch.float64)
    for axis, others in enumerate(((0, 1), (0, 2), (1, 2))):
        one = p.sum(dim=others)
        cells, total = len(one), one
        for _ in range(averaged - 1):
            shifted = [torch.nn.functional.pad(total, (index, cells - 1 - index)) for index in range(cells)]
            total = (torch.stack(shifted) * one[:, None]).sum(dim=0)
        places = (torch.arange(len(total)) / averaged + 0.5) / cells - 0.5
        loss = loss + weights[axis] * (total * (places - target[axis]).abs()).sum()
    (gradient,) = torch.autograd.grad(loss + entropy * (p * p.log()).sum(), leaf)
    return loss.item(), gradient


def test_enumeration_of_pairs_agrees_with_every_pair() -> None:
    logits, target = torch.randn(2, 3, 4, generator=seeded(), dtype=torch.float64), torch.tensor([0.1, -0.2, 0.3])
    p = logits.flatten().softmax(dim=0)
    axes = [cell_positions(n, "center", torch.float64) for n in (2, 3, 4)]
    places = torch.stack([grid.flatten() for grid in torch.meshgrid(*axes, indexing="ij")[::-1]], dim=-1)
    answers = (places[:, None] + places) / 2
    expected = (p[:, None] * p * (answers - target).abs().sum(dim=-1)).sum().item()
    assert enumerated(logits, target, torch.ones(3), 2, 0.0)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("draws", "averaged", "entropy"), [(4, 1, 0.0), (8, 1, 0.3), (8, 3, 0.0), (16, 5, 0.02), (64, 33, 0.02)]
)
def test_score_function_gradient_agrees_with_enumeration(draws: int, averaged: int, entropy: float) -> None:
    """Within three standard errors: the whole vector's, from many independent estimates on a volume of 4^3."""
    many = 4000
    one = 0.5 * torch.randn(4, 4, 4, generator=seeded(1), dtype=torch.float64)
    target, weights = torch.tensor([0.1, -0.3, 0.2]).double(), torch.tensor([1.0, 1.0, 0.5]).double()
    loss, exact = enumerated(one, target, weights, averaged, entropy)
    logits = one.repeat(many, 1, 1, 1, 1).requires_grad_()
    shared = (target.expand(many, 1, 3), weights.expand(many, 1, 3))
    mean = expected_l1(logits, *shared, "center", draws, averaged, entropy, seeded())
    mean.backward()
    estimates = logits.grad[:, 0] * many  # the loss is a mean over samples
    error = estimates.mean(dim=0) - exact
    standard = estimates.std(dim=0) / many**0.5
    assert error.norm() <= 3 * standard.norm()
    assert (error.abs() / standard).max() < 4.5
    assert standard.norm() < 0.2 * exact.norm()  # else the test would not see a wrong gradient
    assert mean.item() == pytest.approx(loss, rel=0.02)


def test_many_averaged_draws_follow_the_gradient_of_the_expectation() -> None:
    many, one = 1000, torch.randn(4, 4, 4, generator=seeded(1), dtype=torch.float64)
    target, weights = torch.tensor([[[0.4, -0.4, 0.4]]]).double(), torch.ones(1, 1, 3).double()
    leaf = one[None].clone().requires_grad_()
    masked_l1(soft_argmax(leaf, 4), target, weights).backward()
    logits = one.repeat(many, 1, 1, 1, 1).requires_grad_()
    shared = (target.expand(many, 1, 3), weights.expand(many, 1, 3))
    expected_l1(logits, *shared, "center", 64, 33, 0.0, seeded()).backward()
    found = logits.grad[:, 0].sum(dim=0)
    assert (found - leaf.grad[0]).norm() < 0.1 * leaf.grad[0].norm()


def test_baseline_reduces_the_variance() -> None:
    many, draws = 2000, 8
    logits = torch.randn(1, 1, 4, 4, 4, generator=seeded(1)).expand(many, 1, 4, 4, 4).clone().requires_grad_()
    target, weights = torch.zeros(many, 1, 3), torch.ones(many, 1, 3)
    expected_l1(logits, target, weights, "center", draws, generator=seeded()).backward()
    ours = (logits.grad * many).var(dim=0).sum()
    # Without baseline: the mean of error * (one-hot - p).
    p = logits.detach()[0, 0].flatten().softmax(dim=0)
    axis = cell_positions(4, "center")
    errors = (axis.abs()[:, None, None] + axis.abs()[:, None] + axis.abs()).flatten()
    moments = torch.diag(p * errors**2) - torch.outer(p, p * errors**2) * 2
    plain = (moments + torch.outer(p, p) * (p * errors**2).sum()).trace() - ((p * (errors - p @ errors)) ** 2).sum()
    assert ours < 0.7 * plain / draws


@pytest.mark.parametrize("averaged", [1, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite_and_sum_to_zero_whatever_the_logits(
    averaged: int, dtype: torch.dtype, scale: float
) -> None:
    logits = (scale * torch.randn(2, 3, 4, 4, 4, generator=seeded())).to(dtype).requires_grad_()
    target, weights = torch.rand(2, 3, 3, generator=seeded(1)) - 0.5, torch.ones(2, 3, 3)
    target[0, :, 2], weights[0, :, 2] = 1e6, 0.0  # without z, and the truth is anywhere
    weights[1, 2] = 0
    loss = expected_l1(logits, target, weights, "center", 16, averaged, 0.0, seeded())
    loss.backward()
    assert loss.isfinite()
    assert loss < 10
    assert logits.grad.isfinite().all()
    sums, sizes = logits.grad.double().flatten(2).sum(dim=2), logits.grad.double().flatten(2).abs().sum(dim=2)
    assert (sums.abs() <= (1e-5 if dtype == torch.float32 else 0.02) * sizes + 1e-6).all()
    assert (sizes[1, 2] == 0).all()  # nothing is known of this joint


def test_cells_are_drawn_by_their_probability() -> None:
    logits = 2 * torch.randn(1, 2, 3, 4, 5, generator=seeded(2))
    w, h, d = draw_cells(logits, 40_000, seeded())
    for joint in range(2):
        flat = (d * 20 + h * 5 + w)[0, joint]
        counts = torch.bincount(flat, minlength=60) / 40_000
        p = logits[0, joint].flatten().softmax(dim=0)
        deviations = (counts - p) / (p * (1 - p) / 40_000).sqrt()
        assert deviations.abs().max() < 4
        assert deviations.square().mean() < 2


def test_a_certain_cell_is_always_drawn_and_generators_repeat() -> None:
    logits = torch.zeros(1, 1, 3, 4, 5)
    logits[0, 0, 2, 1, 3] = 200
    assert [int(index.unique()) for index in draw_cells(logits, 50, seeded())] == [3, 1, 2]
    flat = torch.zeros(2, 3, 4, 4, 4)
    assert torch.equal(draw_cells(flat, 9, seeded(5)), draw_cells(flat, 9, seeded(5)))
    assert not torch.equal(draw_cells(flat, 9, seeded(5)), draw_cells(flat, 9, seeded(6)))


def test_logits_that_are_not_finite_show_in_the_loss() -> None:
    logits = torch.full((1, 1, 4, 4, 4), float("nan"))
    loss = expected_l1(logits, torch.zeros(1, 1, 3), torch.ones(1, 1, 3), "center", 4, generator=seeded())
    assert loss.isnan()


def gaussian(target: np.ndarray, shape: tuple[int, int, int], sigma: float) -> np.ndarray:
    """Cell by cell: d h w."""
    d, h, w = shape
    volume = np.zeros(shape)
    for z, y, x in np.ndindex(*shape):
        away = np.array([(x + 0.5) - (target[0] + 0.5) * w, (y + 0.5) - (target[1] + 0.5) * h])
        deep = (z + 0.5) - (target[2] + 0.5) * d
        volume[z, y, x] = np.exp(-0.5 * (away @ away + deep**2) / sigma**2)
    return volume / volume.sum()


def test_heat_map_loss_is_its_definition() -> None:
    logits = torch.randn(1, 2, 3, 4, 5, generator=seeded(), dtype=torch.float64)
    target = torch.tensor([[[0.1, -0.2, 0.3], [0.0, 0.25, 1e6]]], dtype=torch.float64)
    weights = torch.tensor([[[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]], dtype=torch.float64)
    p = [logits[0, joint].flatten().softmax(dim=0).view(3, 4, 5).numpy() for joint in range(2)]
    bells = [gaussian(np.nan_to_num(t), (3, 4, 5), 1.5) for t in ([0.1, -0.2, 0.3], [0.0, 0.25, 0.0])]
    expected = ((p[0] - bells[0]) ** 2).sum() + ((p[1].sum(0) - bells[1].sum(0)) ** 2).sum()
    assert heatmap_l2(logits, target, weights, "center", 1.5).item() == pytest.approx(expected)
    assert heatmap_l2(logits, target, weights * 0, "center", 1.5).item() == 0


def test_heat_map_loss_without_z_does_not_touch_the_depth_profile() -> None:
    logits = torch.randn(1, 1, 3, 4, 5, generator=seeded(), dtype=torch.float64).requires_grad_()
    weights = torch.tensor([[[1.0, 1.0, 0.0]]], dtype=torch.float64)
    heatmap_l2(logits, torch.zeros(1, 1, 3, dtype=torch.float64), weights, "center", 1.0).backward()
    # Along z the gradient is proportional to p: it moves mass between columns, never within one.
    ratio = logits.grad[0, 0] / logits.detach()[0, 0].flatten().softmax(dim=0).view(3, 4, 5)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_a_target_far_outside_gives_a_finite_gradient() -> None:
    logits = torch.randn(1, 1, 3, 4, 5, generator=seeded()).requires_grad_()
    heatmap_l2(logits, torch.tensor([[[40.0, -3.0, 0.0]]]), torch.ones(1, 1, 3), "center", 0.5).backward()
    assert logits.grad.isfinite().all()


def test_each_part_counts_with_its_weight() -> None:
    torch.manual_seed(0)
    net = PoseNetwork(TINY).eval()
    images, target, weights = torch.randn(2, 3, 64, 64), torch.rand(2, 17, 3) - 0.5, torch.ones(2, 17, 3)

    def loss(**values: float) -> float:
        return compute_loss(net, images, target, weights, TINY, LossSettings(**values)).item()

    l1, heatmap = loss(), loss(l1=0.0, heatmap=1.0)
    assert l1 == pytest.approx(masked_l1(net(images), target, weights).item(), rel=1e-5)
    assert loss(l1=2.0) == pytest.approx(2 * l1, rel=1e-5)
    assert loss(l1=0.5, heatmap=10.0) == pytest.approx(0.5 * l1 + 10 * heatmap, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "loss", "left"),
    [
        (replace(TINY, head="probabilistic"), LossSettings(), 0.6),
        (TINY, LossSettings(l1=0.0, heatmap=300.0), 0.85),
        (TINY, LossSettings(heatmap=300.0), 0.85),
        (replace(TINY, head="probabilistic"), LossSettings(heatmap=300.0), 0.85),
        (replace(TINY, head="regression"), LossSettings(), 0.5),
        (replace(TINY, soft_argmax="chunked"), LossSettings(), 0.5),
    ],
    ids=["probabilistic", "heatmap", "L1+heatmap", "probabilistic+heatmap", "regression", "chunked"],
)
def test_learns_a_batch_by_heart(model: ModelSettings, loss: LossSettings, left: float) -> None:
    torch.manual_seed(0)
    net, generator = PoseNetwork(model), seeded()
    images, target = torch.randn(4, 3, 64, 64), torch.rand(4, 17, 3) * 0.6 - 0.3
    target[0, :, 2] = 0  # without z, and the truth is anywhere
    weights = torch.ones_like(target)
    weights[0, :, 2] = 0
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    errors = []
    for _ in range(60):
        value = compute_loss(net, images, target, weights, model, loss, generator)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        errors.append(masked_l1(net(images).detach(), target, weights).item())
        assert value.isfinite()
    assert errors[-1] < left * errors[0]
