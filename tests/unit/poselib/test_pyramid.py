import numpy as np
import pytest
import torch
from torch import nn

from poselib.model.pyramid import PooledBatchNorm2d, PyramidPooling

pytestmark = pytest.mark.unit


def test_levels_share_the_channels_and_stand_behind_the_input() -> None:
    pyramid = PyramidPooling(12, (1, 2, 3), 10)
    features = torch.randn(2, 12, 5, 4)
    out = pyramid(features)
    assert pyramid.out_channels == 12 + 3 * 3
    assert out.shape == (2, 21, 5, 4)
    torch.testing.assert_close(out[:, :12], features, rtol=0, atol=0)


def test_the_single_bin_says_the_same_everywhere() -> None:
    out = PyramidPooling(6, (1,), 4)(torch.randn(3, 6, 4, 3))[:, 6:]
    torch.testing.assert_close(out, out[..., :1, :1].expand_as(out))


def test_bins_may_exceed_the_feature_map() -> None:
    # More bins than cells: pooling repeats cells. With 2n bins of n cells each cell is repeated exactly twice.
    pyramid = PyramidPooling(4, (6,), 4).eval()
    level = pyramid.levels[0]
    features = torch.randn(1, 4, 3, 3)
    repeated = features.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = level.norm(level.conv(repeated)).relu()
    expected = nn.functional.interpolate(expected, (3, 3), mode="bilinear", align_corners=False)
    torch.testing.assert_close(pyramid(features)[:, 4:], expected)


@pytest.mark.parametrize("bins", [(1, 2, 3, 6), (1, 6, 12, 18), (1, 2, 3, 6, 12, 18), (1, 2, 3, 6, 12, 18, 24)])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 9), (2, 2)])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_reports_bins_train_on_its_feature_maps(bins: tuple[int, ...], height: int, width: int, batch: int) -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(8, bins, 16).train()
    features = torch.randn(batch, 8, height, width, requires_grad=True)
    out = pyramid(features)
    assert out.shape == (batch, 8 + 16 // len(bins) * len(bins), height, width)
    out.square().sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pyramid.parameters())
    assert all(level.conv.weight.grad.abs().max() > 0 for level in pyramid.levels if batch > 1)


@pytest.mark.parametrize(("rows", "columns", "bins"), [(12, 9, 5), (8, 8, 12), (2, 2, 3), (3, 2, 1)])
def test_a_cell_of_a_level_is_the_mean_of_what_it_covers(rows: int, columns: int, bins: int) -> None:
    """Cell i of n over a map of m covers rows floor(i m / n) to ceil((i + 1) m / n): section 3.2's pooling, by hand."""
    pyramid = PyramidPooling(3, (bins,), 2).double().eval()
    level = pyramid.levels[0]
    x = torch.randn(1, 3, rows, columns, dtype=torch.float64)
    pooled = torch.empty(1, 3, bins, bins, dtype=torch.float64)
    for i, j in np.ndindex(bins, bins):
        high = slice(i * rows // bins, -(-(i + 1) * rows // bins))
        wide = slice(j * columns // bins, -(-(j + 1) * columns // bins))
        pooled[..., i, j] = x[..., high, wide].mean(dim=(2, 3))
    seen = level.norm(torch.einsum("bchw,oc->bohw", pooled, level.conv.weight[..., 0, 0])).relu()
    expected = nn.functional.interpolate(seen, (rows, columns), mode="bilinear", align_corners=False)
    torch.testing.assert_close(pyramid(x)[:, 3:], expected)


def test_one_sample_trains_through_the_single_bin() -> None:
    pyramid = PyramidPooling(6, (1, 2), 4).train()
    norm = pyramid.levels[0].norm
    with torch.no_grad():
        norm.running_mean.fill_(0.3)
    pyramid(torch.randn(1, 6, 4, 4)).sum().backward()
    torch.testing.assert_close(norm.running_mean, torch.full((2,), 0.3))
    assert norm.num_batches_tracked == 0
    assert pyramid.levels[1].norm.num_batches_tracked == 1
    assert norm.weight.grad is not None


def test_pooled_norm_is_batchnorm_wherever_that_is_defined() -> None:
    ours, theirs = PooledBatchNorm2d(3), nn.BatchNorm2d(3)
    for x in (torch.randn(2, 3, 1, 1), torch.randn(1, 3, 2, 1), torch.randn(4, 3, 3, 3)):
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x[:1, :, :1, :1]), theirs(x[:1, :, :1, :1]))
