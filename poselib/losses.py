"""Training losses.

All of them sum over a sample's joints and average over the samples: they divide by `b`, the micro-batch, and by no
count of supervised joints. `b` is one number on every rank and at every step of a run, so the mean of the ranks'
gradients is the gradient of their union.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from poselib.model.integral import cell_positions, soft_argmax
from poselib.model.sampling import draw_cells
from poselib.settings import CellOrigin, LossSettings, ModelSettings

Forward = Callable[..., Tensor]
"""A `PoseNetwork`, or whatever wraps one: `(images, output=...)`."""


def compute_loss(
    network: Forward,
    images: Float[Tensor, "b 3 h w"],
    targets: Float[Tensor, "b j 3"],
    weights: Float[Tensor, "b j 3"],
    model: ModelSettings,
    settings: LossSettings,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """One forward pass and the loss that a run is trained on.

    Args:
        network: what to train, or its wrapper; called once.
        images: normalised crops.
        targets: u, v, z in volume units.
        weights: 0 where a coordinate is not supervised; the target there may be anything finite.
        model: the network's settings.
        settings: which losses; `settings.check(model)` tells beforehand whether they fit.
        generator: for the draws of the probabilistic head; None takes torch's own.
    """
    settings.check(model)
    if model.head == "regression" or (model.head == "integral" and not settings.heatmap):
        # Without logits in between, the network may take the form that never holds them.
        return settings.l1 * masked_l1(network(images, output="expectation"), targets, weights)
    logits = network(images, output="logits")
    loss = torch.zeros((), device=logits.device)
    if model.head == "probabilistic":
        volume = logits.unflatten(1, (-1, model.depth))
        how = (model.cell_origin, settings.draws, settings.draws_averaged, settings.entropy, generator)
        loss = settings.l1 * expected_l1(volume, targets, weights, *how)
    elif settings.l1:
        predicted = soft_argmax(logits, model.depth, model.cell_origin, model.soft_argmax)
        loss = settings.l1 * masked_l1(predicted, targets, weights)
    if settings.heatmap:
        volume = logits.unflatten(1, (-1, model.depth))
        loss = loss + settings.heatmap * heatmap_l2(volume, targets, weights, model.cell_origin, settings.sigma)
    return loss


def masked_l1(
    predicted: Float[Tensor, "b j 3"], target: Float[Tensor, "b j 3"], weights: Float[Tensor, "b j 3"]
) -> Float[Tensor, ""]:
    """Weighted absolute error, summed over a sample's coordinates and averaged over the samples.

    Args:
        predicted: u, v, z in volume units.
        target: the same.
        weights: 0 where a coordinate is not supervised; the target there may be anything finite.

    Source: Sun et al., "Integral Human Pose Regression", 2018; the normalisation is that of their code.
    """
    return ((predicted - target).abs() * weights).sum() / predicted.shape[0]


def expected_l1(
    volume: Float[Tensor, "b j d h w"],
    target: Float[Tensor, "b j 3"],
    weights: Float[Tensor, "b j 3"],
    cell_origin: CellOrigin,
    draws: int,
    averaged: int = 1,
    entropy: float = 0.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """`masked_l1` of answers drawn from the heat maps: an unbiased estimate of its expectation, gradient included.

    An answer is the mean place of `averaged` cells, drawn independently from the softmax of the logits. The gradient is
    that of the score function: of a draw's logarithmic probability times how much worse its answer is than that of the
    other draws. To that end the draws are halved. Each draw of one half becomes an answer with the same `averaged - 1`
    draws of the other half, so that answers differ in one cell alone, and is judged by the mean of its half's other
    answers. With this baseline the factors of a joint sum to 0: the normaliser of the softmax drops out, and only the
    drawn cells' logits have a gradient. All `averaged` cells matter alike, hence that factor.

    Why averages: the expected error of a single cell is least on the cell nearest to the target. It narrows a heat map
    before it moves it, and a heat map fallen onto one cell learns no more. That of a mean is least where the
    expectation meets the target, between cells too; as `averaged` grows it tends to the error of the expectation.

    The gradient (not the value) may be that of the expected error minus `entropy` times the heat maps' entropy, against
    the same fall. Single cells then tend to exp(-error / entropy).

    Args:
        volume: logits.
        target: u, v, z in volume units.
        weights: as for `masked_l1`.
        cell_origin: where cells lie, see `cell_positions`.
        draws: cells drawn per joint, even, at least 4.
        averaged: cells of an answer, 1 to draws / 2 + 1.
        entropy: weight of the heat maps' entropy, volume units.
        generator: to draw with; None takes torch's own.

    Source: Williams, "Simple statistical gradient-following algorithms", 1992; Kool et al., "Buy 4 REINFORCE samples,
    get a baseline for free!", 2019.
    """
    batch, joints, *cells = volume.shape
    w, h, d = draw_cells(volume, draws, generator)
    dtype = torch.promote_types(volume.dtype, torch.float32)
    axes = [cell_positions(n, cell_origin, dtype, volume.device) for n in reversed(cells)]
    places = torch.stack([axis[index] for axis, index in zip(axes, (w, h, d), strict=True)], dim=-1)
    half = draws // 2
    places = places.unflatten(2, (2, half))
    companions = places[:, :, :, : averaged - 1].sum(dim=3, keepdim=True).flip(2)
    answers = (places + companions) / averaged
    errors = ((answers - target[:, :, None, None]).abs() * weights[:, :, None, None]).sum(dim=-1)
    sample = torch.arange(batch, device=volume.device)[:, None, None]
    joint = torch.arange(joints, device=volume.device)[:, None]
    logits = volume[sample, joint, d, h, w].to(dtype).unflatten(2, (2, half))
    # The logits are the logarithmic probabilities but for the normaliser, which the baseline takes away here too.
    costs = averaged * errors + entropy * logits.detach()
    worse = (costs - costs.mean(dim=3, keepdim=True)) * half / (half - 1)
    score = (worse * logits).mean(dim=(2, 3)).sum() / batch
    # The score has the gradient, the errors are the value; one that is not finite makes both so.
    return errors.mean(dim=(2, 3)).sum() / batch + (score - score.detach())


def heatmap_l2(
    volume: Float[Tensor, "b j d h w"],
    target: Float[Tensor, "b j 3"],
    weights: Float[Tensor, "b j 3"],
    cell_origin: CellOrigin,
    sigma: float,
) -> Float[Tensor, ""]:
    """Squared distance between a joint's heat map and a Gaussian around its target, summed over cells and joints.

    Heat map and Gaussian both sum to 1 over the volume. A joint without z is compared by its sum over z with a Gaussian
    over x and y, one without x or y not at all. A target outside the volume pulls to the border cells nearest to it.

    Args:
        volume: logits.
        target: u, v, z in volume units.
        weights: as for `masked_l1`; a joint counts with its least weight, x and y's if it has no z.
        cell_origin: where cells lie, see `cell_positions`.
        sigma: standard deviation of the Gaussian, cells.
    """
    dtype = torch.promote_types(volume.dtype, torch.float32)
    p = volume.flatten(2).softmax(dim=2, dtype=dtype).view(volume.shape)
    bells = []
    for axis, cells in enumerate(reversed(volume.shape[2:])):
        away = (cell_positions(cells, cell_origin, dtype, p.device) - target[..., axis, None]) * cells
        # A softmax, for a bell far outside would sum to 0 by underflow.
        bells.append((-0.5 * (away / sigma).square()).softmax(dim=2))
    u, v, z = bells
    plane = v[..., :, None] * u[..., None, :]
    whole = (p - z[..., None, None] * plane[:, :, None]).square().sum(dim=(2, 3, 4))
    flat = (p.sum(dim=2) - plane).square().sum(dim=(2, 3))
    known = weights[..., :2].amin(dim=2)
    deep = weights[..., 2]
    per_joint = torch.where(deep > 0, whole * torch.minimum(known, deep), flat * known)
    return per_joint.sum() / volume.shape[0]
