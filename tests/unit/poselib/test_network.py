from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from poselib.losses import masked_l1
from poselib.model import PoseNetwork
from poselib.model.integral import soft_argmax
from poselib.settings import ModelSettings
from poselib.skeleton import mirror_permutation
from poselib.volume import flip_average, mirror

pytestmark = pytest.mark.unit

TINY = ModelSettings(
    backbone="resnet18",
    width=8,
    crop_width=64,
    crop_height=96,
    depth=6,
    ppm_bins=(1, 2),
    decoder_channels=16,
    decoder_layers=2,
)


def images(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 96, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("settings", "millions"),
    [
        (ModelSettings(ppm_bins=None), 34.27),
        (ModelSettings(backbone="resnet152", crop_width=288, crop_height=384, depth=72), 81.53),
    ],
)
def test_parameters_and_shapes_of_the_published_networks(settings: ModelSettings, millions: float) -> None:
    with torch.device("meta"):
        net = PoseNetwork(settings)
        logits = net.heatmap_logits(torch.empty(2, 3, settings.crop_height, settings.crop_width))
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    assert logits.shape == (2, 17 * settings.depth, settings.heatmap_height, settings.heatmap_width)


@pytest.mark.parametrize(
    ("settings", "gigaflop"),
    [
        (ModelSettings(ppm_bins=None), 49.8),
        (ModelSettings(backbone="resnet152", crop_width=288, crop_height=384, depth=72), 189.5),
    ],
)
def test_operations_of_the_published_networks(settings: ModelSettings, gigaflop: float) -> None:
    """Forward and backward of one picture: convolutions and products, a multiplication with its addition as two."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = PoseNetwork(settings)
        net.heatmap_logits(torch.empty(1, 3, settings.crop_height, settings.crop_width)).sum().backward()
    assert counter.get_total_flops() / 1e9 == pytest.approx(gigaflop, abs=0.05)


def test_pyramid_doubles_the_decoders_input() -> None:
    with torch.device("meta"):
        assert PoseNetwork(ModelSettings()).decoder.upsampling[0].weight.shape == (4096, 256, 4, 4)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_each_decoder_layer_doubles_the_heat_map(layers: int) -> None:
    settings = replace(TINY, decoder_layers=layers)
    logits = PoseNetwork(settings).heatmap_logits(images())
    assert logits.shape == (2, 17 * 6, 3 * 2**layers, 2 * 2**layers)
    assert logits.shape[2:] == (settings.heatmap_height, settings.heatmap_width)


def test_forward_is_the_soft_argmax_of_the_logits() -> None:
    net = PoseNetwork(replace(TINY, cell_origin="corner")).eval()
    torch.testing.assert_close(net(images()), soft_argmax(net.heatmap_logits(images()), 6, "corner"))


def test_decoder_starts_nearly_flat() -> None:
    net = PoseNetwork(TINY)
    assert net.decoder.upsampling[0].weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert net.decoder.head.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert net.decoder.head.bias.abs().max() == 0
    assert net(images()).abs().max() < 0.01


def test_evaluation_mode_judges_each_picture_alone() -> None:
    net = PoseNetwork(TINY).train()
    net(images())
    net.eval()
    torch.testing.assert_close(net(images(3))[1:2], net(images(3)[1:2]))


def test_training_takes_a_single_picture() -> None:
    PoseNetwork(TINY).train()(images(1)).sum().backward()


def test_channels_last_gives_the_same() -> None:
    net = PoseNetwork(TINY).eval()
    plain = net(images())
    last = net.to(memory_format=torch.channels_last)(images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, last, rtol=0, atol=1e-6)


def test_autocast_leaves_the_answer_in_float32() -> None:
    net = PoseNetwork(TINY)
    with torch.autocast("cpu", torch.bfloat16):
        assert net.heatmap_logits(images()).dtype == torch.bfloat16
        assert net(images()).dtype == torch.float32


def test_learns_a_batch_by_heart() -> None:
    torch.manual_seed(0)
    net = PoseNetwork(TINY)
    target = torch.rand(4, 17, 3) * 0.6 - 0.3
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(45):
        loss = masked_l1(net(images(4)), target, torch.ones_like(target))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("form", ["reference", "flat", "recompute", "chunked"])
def test_every_form_trains_every_weight_alike(form: str) -> None:
    gradients = []
    for soft_argmax_form in ("reference", form):
        torch.manual_seed(0)
        net = PoseNetwork(replace(TINY, soft_argmax=soft_argmax_form, temperature=0.5)).double()
        torch.nn.init.normal_(net.decoder.head.weight)
        net(images().double(), output="expectation").square().sum().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_a_flip_test_mirrors_to_the_last_bit() -> None:
    """Averaged with its mirrored twin, a mirrored picture has the mirrored answer, whatever the weights are."""

    def flip_test(pictures: torch.Tensor) -> torch.Tensor:
        return flip_average(net(pictures), net(pictures.flip(-1)))

    torch.manual_seed(0)
    net = PoseNetwork(TINY).eval()
    torch.nn.init.normal_(net.decoder.head.weight)
    with torch.no_grad():
        plain, mirrored = flip_test(images()), flip_test(images().flip(-1))
    assert not torch.equal(mirrored, plain)
    torch.testing.assert_close(mirrored, mirror(plain), rtol=0, atol=0)


def test_a_symmetric_heat_map_decodes_to_symmetric_joints() -> None:
    """Where a mirrored picture has mirrored heat maps, its answer is mirrored, and a flip test changes nothing."""
    volume = 3 * torch.randn(2, 17, 6, 12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mirrored = volume.flip(-1)[:, mirror_permutation().tolist()]
    plain, twin = (soft_argmax(v.flatten(1, 2), 6, "center") for v in (volume, mirrored))
    torch.testing.assert_close(mirror(twin), plain, rtol=0, atol=1e-15)
    corner = soft_argmax(mirrored.flatten(1, 2), 6, "corner")
    shifted = mirror(corner)[..., 0] - soft_argmax(volume.flatten(1, 2), 6, "corner")[..., 0]
    torch.testing.assert_close(shifted, torch.full_like(shifted, 1 / 8), rtol=0, atol=1e-15)  # one cell of 8


def test_mode_is_the_highest_cell() -> None:
    torch.manual_seed(0)
    net = PoseNetwork(replace(TINY, inference="mode")).eval()
    volume = net.heatmap_logits(images()).unflatten(1, (17, 6))
    d, h, w = np.unravel_index(int(volume[1, 5].argmax()), volume.shape[2:])
    place = [(w + 0.5) / 8 - 0.5, (h + 0.5) / 12 - 0.5, (d + 0.5) / 6 - 0.5]
    assert net(images())[1, 5].tolist() == pytest.approx(place)


def test_temperature_divides_the_scores() -> None:
    torch.manual_seed(0)
    warm, cold = PoseNetwork(TINY).eval(), PoseNetwork(replace(TINY, temperature=0.25)).eval()
    cold.load_state_dict(warm.state_dict())
    torch.testing.assert_close(cold.heatmap_logits(images()), 4 * warm.heatmap_logits(images()))


def test_the_control_answers_without_heat_maps() -> None:
    net = PoseNetwork(replace(TINY, head="regression"))
    with torch.autocast("cpu", torch.bfloat16):
        out = net(images())
    assert (out.shape, out.dtype) == ((2, 17, 3), torch.float32)
    with pytest.raises(ValueError, match="head must be integral or probabilistic"):
        net.heatmap_logits(images())
