"""On a real GPU: the levers that only it has take effect and leave what is learned as it is."""

from dataclasses import replace

import pytest
import torch

from cluster.bench.command import run_yaml
from cluster.bench.rounds import Form, Team
from cluster.bench.settings import BenchSettings
from cluster.settings import BatchSettings, EngineSettings
from poselib.settings import ModelSettings

pytestmark = [pytest.mark.gpu, pytest.mark.integration]

TINY = ModelSettings(
    **{"backbone": "resnet18", "width": 32, "crop_width": 128, "crop_height": 128, "depth": 16},
    **{"ppm_bins": (1, 2), "decoder_channels": 64},
)
SETTINGS = BenchSettings(model=TINY, batch=BatchSettings(micro=8))
GRAPHS = {"compile": "default", "cuda_graphs": True}


def form_of(kind: str = "ours", **engine: object) -> Form:
    return Form("x", run_yaml(replace(SETTINGS, engine=EngineSettings(device="cuda", **engine))), kind)


def learned(form: Form) -> tuple[float, float, dict[str, float], dict[str, float]]:
    """The losses of the first step and of one after ten; stages; notes."""
    with Team(form) as team:
        first = team.ask("warm_up")["first_loss"]
        turn = team.ask("steps", 5)
        assert turn["bytes"] > 2**20
        return first, turn["loss"], team.ask("stages", 2), team.ask("notes")


@pytest.fixture(scope="module")
def plain() -> tuple[float, float]:
    """The losses without any lever."""
    first, last, stages, _ = learned(form_of())
    assert stages["exchange"] == 0
    assert last < first
    return first, last


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "lever",
    [
        {"precision": "bf16"},
        {"compile": "default"},
        {"compile": "default", "precision": "bf16"},
        GRAPHS,
        GRAPHS | {"precision": "bf16"},
        {"fused_optimizer": True},
        {"channels_last": False},
        {"activation_checkpointing": True},
        {"zero_stage": 1, "overlap": True, "bucket_mb": 4},
    ],
    ids=str,
)
def test_a_lever_on_a_gpu(lever: dict, plain: tuple[float, float]) -> None:
    first, last, stages, notes = learned(form_of(**lever))
    assert first == pytest.approx(plain[0], rel=2e-2 if lever.get("precision") else 2e-3)
    assert last == pytest.approx(plain[1], rel=5e-2)
    assert stages["forward"] > 0
    assert ("exchange" in stages) == (not lever.get("zero_stage"))
    assert notes == ({"cudagraph_skips": 0, "cudagraphs": 1} if lever.get("cuda_graphs") else {})


@pytest.mark.timeout(900)
def test_the_usual_way_has_the_same_loss(plain: tuple[float, float]) -> None:
    first, last, stages, _ = learned(form_of("usual"))
    assert first == pytest.approx(plain[0], rel=2e-3)
    assert last == pytest.approx(plain[1], rel=5e-2)
    assert "exchange" not in stages


@pytest.mark.timeout(900)
@pytest.mark.parametrize("exchange", ["fp32", "bf16"])
def test_two_gpus_exchange(exchange: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    first, last, stages, _ = learned(form_of(ranks=2, exchange=exchange))
    assert last < first
    assert stages["exchange"] > 0


def test_ceilings_of_a_gpu() -> None:
    with Team(form_of()) as team:
        team.ask("warm_up")
        found = team.ask("ceilings")
    assert found["from_host"] < found["bytes"]
    assert ("tf32" in found) == (torch.cuda.get_device_capability() >= (8, 0))
    assert found.get("tf32", 0.0) != found["fp32"]
