"""What a bench says of errors in its processes."""

import pytest
import torch

from cluster.bench.forms import Ours
from cluster.bench.in_world import bench_in_world
from cluster.bench.settings import BenchSettings
from cluster.bench.worker import explain
from cluster.config import parse
from cluster.settings import Run
from cluster.settings_data import DataSettings
from cluster.world import World
from poselib.errors import InputError
from poselib.settings import ModelSettings

pytestmark = pytest.mark.unit


def test_what_a_user_can_mend_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(InputError("engine.x must be y")) == {"error": "engine.x must be y", "mendable": True}
    assert capsys.readouterr().err == ""
    assert explain(ValueError("first\nsecond")) == {"error": "ValueError: first"}
    assert "ValueError" in capsys.readouterr().err


def test_a_gpu_of_another_process_is_one_clear_line() -> None:
    told = explain(RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nCUDA kernel errors"))
    assert told["mendable"]
    assert "set its compute mode to Default (nvidia-smi -c 0)" in told["error"]


@pytest.mark.parametrize(
    "words",
    [
        ["--against", "[batch.micro=2]"],
        ["--revision", "HEAD"],
        ["--reference", "true"],
        ["--scaling", "[1, 2]"],
        ["--paper", "true"],
    ],
    ids=lambda words: words[0],
)
def test_a_launchers_world_measures_one_form(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=rf"^{words[0].strip('-')} must be left out under a launcher"):
        bench_in_world(parse(BenchSettings, words))


@pytest.mark.parametrize("check", ["cluster.engine.engine.check_precision", "cluster.engine.levers.check_levers"])
def test_what_the_device_lacks_is_refused_before_anything_is_built(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise InputError("engine.precision must be fp32 here")

    monkeypatch.setattr(check, refuse)
    run = Run(name="x", data=DataSettings(h36m=""), model=ModelSettings(backbone="resnet10", width=8))
    with pytest.raises(InputError, match=r"engine\.precision must be fp32 here"):
        Ours(run, World(), torch.device("cpu"), loader=False)
