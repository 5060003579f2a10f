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


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "lever",
    [
        {"compile": "default"},
        {"compile": "default", "cuda_graphs": True},
        {"fused_optimizer": True},
        {"channels_last": False},
        {"activation_checkpointing": True},
        {"zero_stage": 1, "overlap": True, "bucket_mb": 4},
    ],
    ids=str,
)
def test_a_lever_on_a_gpu(lever: dict) -> None:
    losses = []
    for engine in (EngineSettings(device="cuda"), EngineSettings(device="cuda", **lever)):
        with Team(Form("x", run_yaml(replace(SETTINGS, engine=engine)))) as team:
            team.ask("start")
            losses.append(team.ask("steps", 5)["loss"])
            stages = team.ask("stages", 2)
            assert stages["forward"] > 0
            assert team.ask("memory")["bytes"] > 2**20
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
    assert torch.cuda.is_available()
