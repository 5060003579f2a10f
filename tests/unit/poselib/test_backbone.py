import pytest
import torch

from poselib.model.backbone import ResNet

pytestmark = pytest.mark.unit

# What torchvision's own models count, classifier included: state-dict entries and parameters.
TORCHVISION = {
    "resnet18": (122, 11_689_512),
    "resnet34": (218, 21_797_672),
    "resnet50": (320, 25_557_032),
    "resnet101": (626, 44_549_160),
    "resnet152": (932, 60_192_808),
}

# Table 1 of He et al., "Deep Residual Learning for Image Recognition", 2016: blocks of conv2_x to conv5_x.
BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


def torchvision_keys(name: str) -> set[str]:
    """torchvision's state-dict keys, without `fc.weight` and `fc.bias`."""

    def norm(prefix: str) -> set[str]:
        return {f"{prefix}.{key}" for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}

    bottleneck = name not in ("resnet18", "resnet34")
    keys = {"conv1.weight"} | norm("bn1")
    for stage, blocks in enumerate(BLOCKS[name], start=1):
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            for conv in (1, 2, 3)[: 3 if bottleneck else 2]:
                keys |= {f"{prefix}.conv{conv}.weight"} | norm(f"{prefix}.bn{conv}")
            if block == 0 and (bottleneck or stage > 1):
                keys |= {f"{prefix}.downsample.0.weight"} | norm(f"{prefix}.downsample.1")
    return keys


@pytest.mark.parametrize("name", TORCHVISION)
def test_state_dict_is_torchvisions_without_the_classifier(name: str) -> None:
    with torch.device("meta"):
        net = ResNet(name)
    entries, parameters = TORCHVISION[name]
    classifier = net.out_channels * 1000 + 1000
    assert set(net.state_dict()) == torchvision_keys(name)
    assert len(net.state_dict()) == entries - 2
    assert sum(p.numel() for p in net.parameters()) == parameters - classifier


def test_spot_shapes() -> None:
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in ResNet("resnet50").state_dict().items()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer3.5.conv2.weight"] == (256, 256, 3, 3)
    assert shapes["layer4.2.bn3.running_var"] == (2048,)


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 8 * 8), ("resnet50", 8 * 8 * 4)])
def test_width_scales_every_stage_and_stride_is_32(name: str, channels: int) -> None:
    net = ResNet(name, width=8)
    features = net(torch.rand(2, 3, 64, 96))
    assert net.out_channels == channels
    assert features.shape == (2, channels, 2, 3)


def test_the_stride_of_a_bottleneck_sits_in_its_3x3_convolution() -> None:
    with torch.device("meta"):
        block = ResNet("resnet50").layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


def test_initial_weights_are_kaiming_by_fan_out() -> None:
    torch.manual_seed(0)
    net = ResNet("resnet18")
    weight = net.layer3[1].conv2.weight  # 256 x 256 x 3 x 3
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)


def test_botnet_is_resnet_but_for_the_last_stages_3x3_convolutions() -> None:
    with torch.device("meta"):
        resnet, botnet = (
            {key: value.shape for key, value in ResNet(name).state_dict().items()} for name in ("resnet50", "botnet50")
        )
    replaced = {f"layer4.{block}.conv2.weight" for block in range(3)}
    assert set(resnet) - set(botnet) == replaced
    assert all(botnet[key] == shape for key, shape in resnet.items() if key not in replaced)
    assert all(key.startswith("layer4.") and ".conv2." in key for key in set(botnet) - set(resnet))


def test_botnet_has_the_published_size() -> None:
    """20.8 M with its classifier: table 1 of its paper."""
    with torch.device("meta"):
        net = ResNet("botnet50")
    assert (sum(p.numel() for p in net.parameters()) + 2049 * 1000) / 1e6 == pytest.approx(20.8, abs=0.1)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 64)])
def test_botnet_keeps_stride_32_and_trains(height: int, width: int) -> None:
    net = ResNet("botnet50", width=8)
    features = net(torch.rand(2, 3, height, width))
    assert features.shape == (2, 256, height // 32, width // 32)
    features.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
