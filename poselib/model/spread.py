"""What a network says and how sure it is: each joint's place in the volume and the spread of its heat map."""

import torch
from jaxtyping import Float
from torch import Tensor

from poselib.model.integral import cell_axes, highest_place
from poselib.model.network import PoseNetwork
from poselib.settings import CellOrigin
from poselib.skeleton import mirror_permutation
from poselib.volume import flip_average

Moments = tuple[Float[Tensor, "b j 3"], Float[Tensor, "b j 3"]]


@torch.no_grad()
def answer(
    network: PoseNetwork, images: Float[Tensor, "b 3 h w"], *, bf16: bool, flip_test: bool, spread: bool = True
) -> Moments:
    """u, v, z of every joint and their standard deviations, volume units: the forward of evaluation and prediction.

    Args:
        network: in eval mode.
        images: normalised crops.
        bf16: autocast, as the run trained, whatever the device: what is served is what was scored.
        flip_test: average with what the mirrored crop says.
        spread: measure the deviations too, which takes the memory of a batch's logits; without, they are NaN.
    """

    def once(shown: Float[Tensor, "b 3 h w"]) -> Moments:
        if spread:
            return joints_and_spread(network, shown)
        joints = network(shown)
        return joints, torch.full_like(joints, torch.nan)

    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        joints, deviation = once(images)
        if not flip_test:
            return joints, deviation
        of_mirrored, mirrored = once(images.flip(-1))
        return flip_average(joints, of_mirrored), (deviation + mirrored[:, mirror_permutation().tolist()]) / 2


@torch.no_grad()
def joints_and_spread(network: PoseNetwork, images: Float[Tensor, "b 3 h w"]) -> Moments:
    """u, v, z of every joint as `network(images)` gives them, and their standard deviations, both in volume units.

    Evaluation only: it has no gradient, and holds the logits of a whole batch. A head without heat maps has no
    spread: NaN.
    """
    settings = network.settings
    if network.decoder is None:
        joints = network(images)
        return joints, torch.full_like(joints, torch.nan)
    logits = network.heatmap_logits(images)
    by_mode = settings.inference == "mode"
    highest = highest_place(logits, settings.depth, settings.cell_origin) if by_mode else None
    # Nobody else holds these logits.
    mean, deviation = mean_and_deviation(logits, settings.depth, settings.cell_origin, overwrite=True)
    return mean if highest is None else highest, deviation


def mean_and_deviation(
    logits: Float[Tensor, "b jd h w"], depth: int, cell_origin: CellOrigin = "center", overwrite: bool = False
) -> Moments:
    """First moment and root of the second central one along u, v and z of each joint's heat map, volume units.

    Args:
        logits: `b (j d) h w`, the depth cells of a joint stand together.
        depth: depth cells `d` of each joint.
        cell_origin: where cells lie, see `poselib.model.integral.cell_positions`.
        overwrite: the logits' memory may be used.

    Returns:
        Means and standard deviations, at least float32. The mean is `soft_argmax`'s. A heat map that is one single
        cell has the deviation 0: the cells' own size is not in it.
    """
    volume = logits.unflatten(1, (-1, depth))
    axes = cell_axes((depth, *logits.shape[2:]), cell_origin, logits.dtype, logits.device)
    e = volume.to(axes[0].dtype)
    highest = e.amax(dim=(2, 3, 4), keepdim=True)
    e = (e.sub_(highest) if overwrite else e - highest).exp_()
    # Over the depth first: it is what lies together in channels_last memory.
    across = e.sum(dim=2)
    marginals = (across.sum(dim=2), across.sum(dim=3), e.sum(dim=(3, 4)))
    total = marginals[2].sum(dim=-1, keepdim=True)
    means, deviations = [], []
    for marginal, axis in zip(marginals, axes, strict=True):
        p = marginal / total
        mean = (p * axis).sum(dim=-1, keepdim=True)
        # From the mean, not as a difference of moments: that would lose narrow heat maps in rounding.
        deviations.append((p * (axis - mean).square()).sum(dim=-1).sqrt())
        means.append(mean.squeeze(-1))
    return torch.stack(means, dim=-1), torch.stack(deviations, dim=-1)
