"""What a profile makes of torch's rows: only what took time by itself counts, once."""

from types import SimpleNamespace

import pytest
from torch.autograd import DeviceType

from cluster.bench.profile import summary

pytestmark = pytest.mark.unit


def row(key: str, device: DeviceType, cpu: float, on_device: float, annotation: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        key=key,
        device_type=device,
        is_user_annotation=annotation,
        self_cpu_time_total=cpu,
        cpu_time_total=cpu,
        self_device_time_total=on_device,
        count=4,
    )


ROWS = [
    row("aten::convolution", DeviceType.CPU, 100.0, 6000.0),  # the time of the kernel that it launched
    row("a convolution's kernel", DeviceType.CUDA, 0.0, 6000.0),
    row("a copy's kernel", DeviceType.CUDA, 0.0, 1000.0),
    row("stage: forward", DeviceType.CUDA, 0.0, 9000.0, annotation=True),
    row("stage: batch", DeviceType.CPU, 2500.0, 0.0, annotation=True),
    row("stage: forward", DeviceType.CPU, 1500.0, 0.0, annotation=True),
]


def test_a_kernel_counts_once() -> None:
    lines = summary(ROWS, steps=2, seconds=0.01, cuda=True).splitlines()
    assert lines[:4] == [
        "2 steps, 5.0 ms each; the largest costs among kernels on the GPU:",
        "25% of the time waited for data",
        "1. a convolution's kernel: 60%, 3.0 ms a step in 2 calls",
        "2. a copy's kernel: 10%, 0.5 ms a step in 2 calls",
    ]
    assert not any("aten" in line for line in lines)
    assert ["forward", "0.75", "15.0%"] in [line.split() for line in lines]


def test_on_a_cpu_operators_count_and_named_ranges_do_not() -> None:
    text = summary(ROWS, steps=2, seconds=0.01, cuda=False)
    assert "1. aten::convolution: 1%" in text
    assert "kernel" not in text
    assert "2. " not in text
