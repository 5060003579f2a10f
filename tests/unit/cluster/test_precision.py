"""bf16 is refused where a GPU would only imitate it, before anything is computed."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from cluster import evaluate
from cluster.config import dump
from cluster.engine.engine import check_precision
from cluster.settings import EngineSettings, Run
from cluster.settings_commands import EvaluateSettings
from cluster.settings_data import DataSettings
from poselib.errors import InputError

pytestmark = pytest.mark.unit


@pytest.fixture
def old_card(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU of compute capability 7.5, as far as torch's questions go."""
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    return torch.device("cuda", 0)


def test_a_gpu_without_bf16_is_named(old_card: torch.device) -> None:
    with pytest.raises(InputError, match=r"engine\.precision must be fp32 on Tesla T4, not bf16.*8\.0") as error:
        check_precision("bf16", old_card)
    assert "\n" not in str(error.value)
    check_precision("fp32", old_card)


def test_a_cpu_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    check_precision("bf16", torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_evaluation_refuses_it_before_it_reads_weights(
    old_card: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = Run(name="x", data=DataSettings(h36m="set"), engine=EngineSettings(precision="bf16"))
    (tmp_path / "run.yaml").write_text(dump(run))
    monkeypatch.setattr(evaluate, "choose_device", lambda setting: old_card)
    with pytest.raises(InputError, match=r"engine\.precision must be fp32 on Tesla T4"):
        evaluate.evaluate_run(EvaluateSettings(run=tmp_path))
