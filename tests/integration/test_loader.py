"""The loader over real shards: its pixels against OpenCV's own, its order against the order's."""

import itertools

import cv2
import numpy as np
import pytest
import torch

from poselib.settings import ModelSettings
from shards.loader import Batch, Source, load_batches, read
from shards.loader_settings import AugmentSettings, CropSettings, LoaderSettings
from shards.manifest import ShardSet
from shards.order import Order

pytestmark = pytest.mark.integration

MODEL = ModelSettings(crop_width=64, crop_height=96)
CROP = CropSettings(allow_border=True)
AUGMENT = AugmentSettings(flip=0.5, color=0.3)


@pytest.fixture
def sources(shard_sets) -> list[Source]:
    sets = [ShardSet.open(shard_sets[name]) for name in ("h36m", "mpii")]
    return [Source(shards, shards.select(), AUGMENT) for shards in sets]


def batches(sources, order, indices, device="cpu", loader="cpu") -> list[Batch]:
    draws = [order.micro_batch(index) for index in indices]
    settings = LoaderSettings(device=loader, prefetch=3)
    return list(load_batches(sources, draws, order.micro, MODEL, CROP, settings, torch.device(device), seed=5))


def order_of(sources, micro=7) -> Order:
    sizes = tuple(len(source.rows) for source in sources)
    return Order(5, sizes, sizes, micro)


def by_opencv(sources, batch: Batch) -> np.ndarray:
    """An independent reading of the plan: decode, warp with an explicit sampling grid."""
    jpegs, _ = read(sources, batch.draws)
    pictures = []
    for jpeg, matrix in zip(jpegs, batch.plan.stored_from_crop.astype(np.float64), strict=True):
        stored = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        x, y = np.meshgrid(np.arange(MODEL.crop_width) + 0.5, np.arange(MODEL.crop_height) + 0.5)
        at = np.einsum("ij,hwj->hwi", matrix[:, :2], np.stack([x, y], -1)) + matrix[:, 2] - 0.5
        at = at.astype(np.float32)
        pictures.append(cv2.remap(stored, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT))
    return np.stack(pictures)


def test_pixels_follow_the_plan(sources):
    for batch in batches(sources, order_of(sources), range(4)):
        assert batch.pictures.shape == (7, 96, 64, 3)
        assert batch.pictures.dtype == torch.uint8
        difference = np.abs(batch.pictures.numpy().astype(int) - by_opencv(sources, batch).astype(int))
        assert difference.mean() < 1.0
        assert np.quantile(difference, 0.99) <= 8


def test_batches_come_in_the_order_and_end(sources):
    order = order_of(sources)
    found = batches(sources, order, range(3, 8))
    assert len(found) == 5
    for index, batch in zip(range(3, 8), found, strict=True):
        np.testing.assert_array_equal(batch.draws.sample, order.micro_batch(index).sample)
        np.testing.assert_array_equal(batch.targets.numpy(), batch.plan.targets)


def test_a_batch_does_not_depend_on_what_came_before(sources):
    order = order_of(sources)
    whole, late = batches(sources, order, range(6)), batches(sources, order, [5])
    assert torch.equal(whole[5].pictures, late[0].pictures)
    assert torch.equal(whole[5].gains, late[0].gains)


def test_kept_batches_are_not_overwritten(sources):
    found = batches(sources, order_of(sources), range(8))
    again = batches(sources, order_of(sources), range(8))
    assert all(torch.equal(a.pictures, b.pictures) for a, b in zip(found, again, strict=True))


def test_mpii_samples_have_no_depth(sources):
    for batch in batches(sources, order_of(sources), range(6)):
        from_mpii = torch.from_numpy(batch.draws.source) == 1
        assert torch.all(batch.weights[from_mpii, :, 2] == 0)
        assert torch.all(batch.weights[~from_mpii] == 1)


def test_inputs_are_gained_clamped_and_normalised(sources):
    batch = next(iter(batches(sources, order_of(sources), [0])))
    pictures, gains = batch.pictures.numpy().astype(np.float64) / 255, batch.gains.numpy().astype(np.float64)
    expected = np.clip(pictures * gains[:, None, None], 0, 1) - [0.485, 0.456, 0.406]
    expected /= [0.229, 0.224, 0.225]
    np.testing.assert_allclose(batch.inputs.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)


def test_a_loader_that_is_left_early_ends(sources):
    order = order_of(sources)
    endless = (order.micro_batch(index) for index in itertools.count())
    loader = load_batches(sources, endless, 7, MODEL, CROP, LoaderSettings(device="cpu"), torch.device("cpu"))
    next(loader)
    loader.close()  # type: ignore[attr-defined]


@pytest.mark.gpu
def test_the_gpu_graph_gives_the_cpu_graphs_pictures(sources):
    order = order_of(sources)
    on_cpu = batches(sources, order, range(4))
    on_gpu = batches(sources, order, range(4), device="cuda:0", loader="gpu")
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert other.pictures.device.type == "cuda"
        difference = (one.pictures.int() - other.pictures.cpu().int()).abs().float()
        # The JPEG engines round the colour conversion otherwise.
        assert difference.mean() < 2.0
        assert torch.equal(one.targets, other.targets.cpu())
