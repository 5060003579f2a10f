"""torch.compile takes the forward pass as one graph, whatever the network is made of."""

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.unit,
    # torch's own tracing of an autograd.Function.
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]

TINY = {
    **{"backbone": "resnet10", "width": 8, "crop_width": 64, "crop_height": 96, "depth": 6},
    **{"ppm_bins": (1, 2), "decoder_channels": 16, "decoder_layers": 2},
}


@pytest.fixture(scope="module")
def plain() -> Iterator[Callable[[str], ModuleType]]:
    """Imports poselib's modules as users do: the tests' checks of shapes are no part of a graph."""

    def ours() -> dict[str, ModuleType]:
        return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "poselib"}

    checked, finders = ours(), list(sys.meta_path)
    for name in checked:
        del sys.modules[name]
    sys.meta_path[:] = [finder for finder in finders if not type(finder).__module__.startswith("jaxtyping")]
    try:
        yield importlib.import_module
    finally:
        sys.meta_path[:] = finders
        for name in ours():
            del sys.modules[name]
        sys.modules.update(checked)
        torch.compiler.reset()


@pytest.mark.parametrize(
    ("changes", "output", "train"),
    [
        ({}, "joints", False),
        ({}, "expectation", True),
        ({"head": "probabilistic", "ppm_bins": None, "temperature": 0.5}, "logits", True),
        ({"head": "regression"}, "joints", True),
        ({"inference": "mode"}, "joints", False),
        ({"backbone": "botnet50"}, "joints", True),  # bottlenecks and attention
    ],
    ids=["integral", "train", "probabilistic, no pyramid", "regression", "mode", "botnet"],
)
def test_a_network_is_one_graph(plain, changes: dict[str, Any], output: str, train: bool) -> None:
    settings = plain("poselib.settings").ModelSettings(**TINY | changes)
    torch.manual_seed(0)
    net = plain("poselib.model.network").PoseNetwork(settings).train(train)
    images = torch.randn(2, 3, 96, 64)
    torch.compiler.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)(images, output=output)
    torch.testing.assert_close(compiled, net(images, output=output), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("form", ["auto", "reference", "flat", "recompute", "chunked"])
def test_every_form_is_one_graph_with_its_gradient(plain, form: str, autocast: bool) -> None:
    projected = plain("poselib.model.integral").projected_soft_argmax
    leaves = [torch.randn(shape, requires_grad=True) for shape in ((2, 5, 4, 3), (3 * 4, 5, 1, 1), (3 * 4,))]

    def answer(function: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = function(*leaves, 4, "center", form)
        assert out.dtype == torch.float32
        return out, *torch.autograd.grad(out.square().sum(), leaves)

    torch.compiler.reset()
    rounding = 2e-2 if autocast else 1e-5
    compiled = answer(torch.compile(projected, backend="eager", fullgraph=True))
    torch.testing.assert_close(compiled, answer(projected), rtol=rounding, atol=rounding)
