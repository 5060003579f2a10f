"""Running statistics are those of the micro-batches in their global order, whatever the number of ranks."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from cluster.engine.batchnorm import combine_statistics, share_momentum

pytestmark = pytest.mark.unit

MICRO, PER_STEP, STEPS, MOMENTUM = 6, 12, 5, 0.1


@pytest.fixture(scope="module")
def micro_batches() -> torch.Tensor:
    """A drifting signal, `step micro sample channel`."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(STEPS * PER_STEP, MICRO, 4, generator=generator)
    return noise * torch.linspace(0.5, 3, len(noise))[:, None, None] + torch.linspace(-2, 5, len(noise))[:, None, None]


def by_definition(micro_batches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, var = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    momentum = 1 - (1 - MOMENTUM) ** (1 / PER_STEP)
    for batch in micro_batches.double():
        mean += momentum * (batch.mean(0) - mean)
        var += momentum * (batch.var(0) - var)
    return mean, var


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("often", [False, True])
def test_every_world_comes_to_the_definition(micro_batches, world_size, often, monkeypatch):
    ranks = [nn.Sequential(nn.BatchNorm1d(4, momentum=MOMENTUM)) for _ in range(world_size)]
    for model in ranks:
        share_momentum(model, PER_STEP // world_size)

    def gather(out: list[torch.Tensor], mine: torch.Tensor) -> None:
        for place, flat in zip(out, snapshot, strict=True):
            place.copy_(flat)

    monkeypatch.setattr(dist, "all_gather", gather)
    for index, batch in enumerate(micro_batches):
        ranks[index % world_size].train()(batch)
        done = index + 1
        if done % PER_STEP == 0 and (often or done == len(micro_batches)):
            snapshot = [torch.cat([model[0].running_mean, model[0].running_var]) for model in ranks]
            for model in ranks:
                combine_statistics(model, world_size, done)
    mean, var = by_definition(micro_batches)
    for model in ranks:
        assert model[0].running_mean.double() == pytest.approx(mean, rel=1e-5, abs=1e-6)
        assert model[0].running_var.double() == pytest.approx(var, rel=1e-5)
        assert model[0].num_batches_tracked == STEPS * PER_STEP


def test_one_micro_batch_per_step_is_torch_as_it_is(micro_batches):
    ours, plain = nn.Sequential(nn.BatchNorm1d(4)), nn.Sequential(nn.BatchNorm1d(4))
    share_momentum(ours, 1)
    for batch in micro_batches:
        ours(batch), plain(batch)
    combine_statistics(ours, 1, len(micro_batches))
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
