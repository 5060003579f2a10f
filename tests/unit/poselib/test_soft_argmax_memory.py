import pytest
import torch

from poselib.model import chunked, integral, recompute
from poselib.model.integral import projected_soft_argmax, soft_argmax

pytestmark = pytest.mark.unit

DEPTH, JOINTS = 4, 3
LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def projection(layout: torch.memory_format = torch.contiguous_format, dtype: torch.dtype = torch.float32) -> list:
    features = random(2, 5, 6, 7, dtype=dtype).to(memory_format=layout)
    weight, bias = random(JOINTS * DEPTH, 5, 1, 1, dtype=dtype), random(JOINTS * DEPTH, dtype=dtype)
    return [leaf.requires_grad_() for leaf in (features, weight, bias)]


def gradients(out: torch.Tensor, leaves: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(out, leaves, torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out))


@pytest.fixture(params=[8, 200, 2**17], ids=["one by one", "some", "all"])
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes of 168 cells worked on one by one, or several at once; pixels in strips or not."""
    for module in (recompute, chunked):
        monkeypatch.setattr(module, "CPU_CELLS", request.param)
    monkeypatch.setattr(chunked, "CPU_PIXELS", request.param)


def test_chunked_gradcheck() -> None:
    leaves = projection(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: projected_soft_argmax(*x, DEPTH, "corner", "chunked"), leaves)


@LAYOUTS
@pytest.mark.usefixtures("together")
def test_chunked_is_convolution_and_reference(layout: torch.memory_format) -> None:
    leaves = projection(layout)
    plain = projected_soft_argmax(*leaves, DEPTH, "center", "reference")
    lean = projected_soft_argmax(*leaves, DEPTH, "center", "chunked")
    torch.testing.assert_close(lean, plain, rtol=0, atol=1e-6)
    for ours, theirs in zip(gradients(lean, leaves), gradients(plain, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@LAYOUTS
@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputed_gradient_is_the_references(layout: torch.memory_format, dtype: torch.dtype) -> None:
    logits = 3 * random(2, JOINTS * DEPTH, 6, 7)
    logits = logits.to(dtype).to(memory_format=layout).requires_grad_()
    (lean,) = gradients(soft_argmax(logits, DEPTH, "center", "recompute"), [logits])
    (plain,) = gradients(soft_argmax(logits, DEPTH, "center", "reference"), [logits])
    assert lean.dtype == dtype
    assert lean.stride() == logits.stride()
    torch.testing.assert_close(lean, plain, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-6)


def test_chunked_sums_gradients_in_float32_under_autocast() -> None:
    leaves = projection(torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        lean = projected_soft_argmax(*leaves, DEPTH, "center", "chunked")
    plain = projected_soft_argmax(*leaves, DEPTH, "center", "reference")
    assert lean.dtype == torch.float32
    torch.testing.assert_close(lean, plain, rtol=0, atol=1e-2)
    for ours, theirs in zip(gradients(lean, leaves), gradients(plain, leaves), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02 * theirs.abs().max().item())


@pytest.mark.parametrize("form", ["recompute", "chunked"])
def test_nothing_of_the_volumes_size_is_kept_but_what_exists_anyway(form: str) -> None:
    leaves = projection()
    logits = torch.nn.functional.conv2d(*leaves)
    existing = {tensor.data_ptr() for tensor in [*leaves, logits]}
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        if form == "recompute":
            soft_argmax(logits, DEPTH, "center", "recompute")
        else:
            projected_soft_argmax(*leaves, DEPTH, "center", "chunked")
    new = [tensor.numel() for tensor in kept if tensor.data_ptr() not in existing]
    assert new
    assert max(new) <= 2 * JOINTS * 3


@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_recomputed_gradient_takes_the_place_of_logits_that_nobody_else_holds(
    layout: torch.memory_format, dtype: torch.dtype
) -> None:
    leaves = projection(layout, dtype)
    lean = projected_soft_argmax(*leaves, DEPTH, "corner", "recompute")
    (logits,) = (t for t in lean.grad_fn.saved_tensors if t.dim() == 5)
    before = logits.clone()
    plain = projected_soft_argmax(*leaves, DEPTH, "corner", "reference")
    rounding = {torch.float64: 1e-12, torch.bfloat16: 2e-2}[dtype]
    for ours, theirs in zip(gradients(lean, leaves), gradients(plain, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rounding, atol=rounding)
    assert not torch.equal(logits, before)


def test_a_second_backward_pass_is_refused_where_the_logits_are_spent() -> None:
    leaves = projection()
    out = projected_soft_argmax(*leaves, DEPTH, "center", "recompute").sum()
    torch.autograd.grad(out, leaves, retain_graph=True)
    with pytest.raises(RuntimeError, match=r"second backward pass needs model\.soft_argmax reference"):
        torch.autograd.grad(out, leaves)
    logits = random(1, DEPTH, 3, 3).requires_grad_()
    whole = soft_argmax(logits, DEPTH, "center", "recompute").sum()
    first, second = (torch.autograd.grad(whole, logits, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_auto_takes_the_chunked_form_where_logits_grow_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = projection()
    assert "Chunked" not in projected_soft_argmax(*leaves, DEPTH).grad_fn.name()
    monkeypatch.setattr(integral, "CHUNKED_FROM_BYTES", 2 * JOINTS * DEPTH * 6 * 7 * 4)
    assert "Chunked" in projected_soft_argmax(*leaves, DEPTH).grad_fn.name()


def test_on_a_gpu_its_memory_says_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        total_memory = 2**34

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card())
    assert integral._chunked_from(torch.device("cuda", 0)) == 2**31
    assert integral._chunked_from(torch.device("cpu")) == 2**32
