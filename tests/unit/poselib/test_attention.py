import numpy as np
import pytest
import torch

from poselib.model.attention import HEADS, SelfAttention2d, relative

pytestmark = pytest.mark.unit


def by_hand(layer: SelfAttention2d, x: np.ndarray) -> np.ndarray:
    """Query by query, key by key, in float64, for a map of the tables' own size."""
    channels, height, width = x.shape
    inner, n = channels // HEADS, height
    weight = layer.qkv.weight.detach().double().numpy()[:, :, 0, 0]
    rows, columns = (table.detach().double().numpy() for table in (layer.rows, layer.columns))
    q, k, v = np.einsum("oc,chw->ohw", weight, x).reshape(3, HEADS, inner, height, width)
    out = np.zeros((HEADS, inner, height, width))
    for head, y, x_ in np.ndindex(HEADS, height, width):
        query = q[head, :, y, x_] / np.sqrt(inner)
        scores = np.zeros((height, width))
        for y2, x2 in np.ndindex(height, width):
            place = rows[y2 - y + n - 1] + columns[x2 - x_ + n - 1]
            scores[y2, x2] = query @ (k[head, :, y2, x2] + place)
        weights = np.exp(scores - scores.max())
        out[head, :, y, x_] = (v[head] * weights / weights.sum()).sum(axis=(1, 2))
    return out.reshape(channels, height, width)


def test_equals_the_definition() -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention2d(8, cells=3).double(), torch.randn(1, 8, 3, 3, dtype=torch.float64)
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), by_hand(layer, x[0].numpy()), atol=1e-12)


def test_stride_averages_the_result() -> None:
    torch.manual_seed(0)
    plain, strided = SelfAttention2d(8, 4), SelfAttention2d(8, 4, stride=2)
    strided.load_state_dict(plain.state_dict())
    x = torch.randn(2, 8, 4, 6)
    torch.testing.assert_close(strided(x), torch.nn.functional.avg_pool2d(plain(x), 2))


def test_tables_of_another_size_keep_ends_and_middle() -> None:
    table = torch.linspace(-1, 1, 7)[:, None]  # made for 4 cells: one unit is the whole distance
    for cells in (2, 4, 9):
        places = relative(table, cells)[..., 0]
        expected = (torch.arange(cells)[None, :] - torch.arange(cells)[:, None]) / (cells - 1)
        torch.testing.assert_close(places, expected)


def test_autocast_and_training() -> None:
    layer = SelfAttention2d(8, 4, stride=2)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(2, 8, 6, 4)).float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
