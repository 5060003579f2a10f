"""Levers of speed and memory: each takes effect, none changes what is learned, and what a machine lacks is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from cluster.engine.engine import Engine, compile_mode
from cluster.engine.levers import build_engine, check_levers
from cluster.engine.recompute import recompute_blocks
from cluster.settings import BatchSettings, EngineSettings, Run
from cluster.settings_data import DataSettings
from cluster.world import World
from poselib.errors import InputError
from poselib.model.backbone import Bottleneck
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
TINY = ModelSettings(
    **{"backbone": "resnet10", "width": 8, "crop_width": 64, "crop_height": 64, "depth": 4, "ppm_bins": (1, 2)},
    **{"decoder_channels": 16, "decoder_layers": 2},
)
RUN = Run(name="levers", data=DataSettings(h36m="none"), model=TINY, batch=BatchSettings(micro=4, global_=4))


class PlainDeepSpeed:
    """As much of DeepSpeed's engine as a step in a world of one takes; notes what it was made with."""

    def __init__(self, **given: Any) -> None:
        self.given, self.config = given, given["config"]
        self.model, self.optimizer = given["model"], given["optimizer"]
        self.compiled: dict[str, Any] | None = None
        self.enable_backward_allreduce = True

    def __call__(self, *inputs: Any, **words: Any) -> torch.Tensor:
        return self.model(*inputs, **words)

    def allreduce_gradients(self, bucket_size: int) -> int:
        return bucket_size

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def compile(self, compile_kwargs: dict[str, Any]) -> None:
        self.compiled = compile_kwargs


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch):
    """Builds the engine of a run whose engine settings are these, around the same new network each time."""

    class Module:
        @staticmethod
        def initialize(**given: Any) -> tuple[PlainDeepSpeed]:
            return (PlainDeepSpeed(**given),)

    monkeypatch.setattr("cluster.engine.engine._import_deepspeed", lambda device: Module)

    def build(world: World | None = None, **settings: Any) -> Engine:
        torch.manual_seed(0)
        run = replace(RUN, engine=EngineSettings(**settings))
        return build_engine(run, PoseNetwork(TINY), world or World(), 1, CPU)

    return build


def learned(engine: Engine, steps: int = 3) -> dict[str, torch.Tensor]:
    engine.model.train()
    inputs = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        engine.backward(engine.forward(inputs.to(memory_format=torch.channels_last)).square().sum())
        engine.step()
    return engine.model.state_dict()


@pytest.mark.parametrize(
    "lever", [{"channels_last": False}, {"fused_optimizer": True}, {"activation_checkpointing": True}], ids=str
)
def test_a_lever_does_not_change_what_is_learned(engine, lever: dict[str, Any]) -> None:
    plain, other = learned(engine()), learned(engine(**lever))
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, rtol=2e-3, atol=2e-4, msg=lambda m, name=name: f"{name}: {m}")


def test_checkpointing_moves_running_statistics_once_and_keeps_less(engine) -> None:
    kept: dict[bool, int] = {}
    for lever in (False, True):
        torch.manual_seed(0)
        block = Bottleneck(64, 16, 1).train()
        if lever:
            recompute_blocks(block)
        sizes: list[int] = []
        x = torch.randn(2, 64, 16, 16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t):
            out = block(x)
        kept[lever] = sum(sizes)
        out.sum().backward()
        assert int(block.bn1.num_batches_tracked) == 1
        assert block.bn1.track_running_stats
        with torch.no_grad():
            block.eval()(x)
    assert kept[True] <= x.numel() < kept[False] / 2


def test_settings_reach_torch_and_deepspeed(engine) -> None:
    made = engine(channels_last=False, fused_optimizer=True, bucket_mb=8, exchange="bf16", precision="bf16")
    assert made.optimizer.defaults["fused"]
    weight = made.model.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous()
    assert made.deepspeed.config["communication_data_type"] == "bf16"
    assert "torch.nn.ConvTranspose2d" in made.deepspeed.config["torch_autocast"]["lower_precision_safe_modules"]
    assert made.deepspeed.allreduce_gradients() == 2_000_000
    usual = engine(compile="default")
    assert not usual.optimizer.defaults["fused"]
    assert usual.model.backbone.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert usual.deepspeed.compiled == {"mode": "default", "dynamic": False}
    assert usual.deepspeed.config["torch_autocast"]["lower_precision_safe_modules"] == []
    sharded = engine(zero_stage=1, overlap=True, bucket_mb=4).deepspeed.config["zero_optimization"]
    assert sharded == {"stage": 1, "reduce_bucket_size": 1_000_000, "overlap_comm": True}


def test_alone_nothing_is_exchanged(engine) -> None:
    assert not engine().deepspeed.enable_backward_allreduce
    assert engine(World(size=2)).deepspeed.enable_backward_allreduce


def test_modes_of_compilation() -> None:
    modes = {
        compile_mode(EngineSettings(compile=mode, cuda_graphs=graphs))
        for mode in ("default", "max-autotune")
        for graphs in (False, True)
    }
    assert modes == {"default", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cuda_graphs": True}, "cuda_graphs must be false with compile off"),
        ({"activation_checkpointing": True, "compile": "default"}, "activation_checkpointing must be false with"),
        ({"overlap": True}, "overlap must be false at zero_stage 0"),
        ({"bucket_mb": 0}, "bucket_mb must be at least 1"),
    ],
)
def test_levers_that_do_not_go_together(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EngineSettings(**settings)


def test_what_a_machine_lacks_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"engine\.cuda_graphs must be false on the CPU"):
        check_levers(EngineSettings(compile="default", cuda_graphs=True), CPU)
    monkeypatch.setattr("cluster.engine.levers.shutil.which", lambda name: None)
    with pytest.raises(InputError, match=r"engine\.compile must be off here: on a CPU it needs a C\+\+ compiler"):
        check_levers(EngineSettings(compile="default"), CPU)
    check_levers(EngineSettings(), CPU)
    monkeypatch.setattr("cluster.engine.levers.importlib.util.find_spec", lambda name: "there")
    with pytest.raises(InputError, match=r"engine\.compile must be off here: on GPUs it needs a C compiler for Triton"):
        check_levers(EngineSettings(compile="default"), torch.device("cuda"))
    monkeypatch.setattr("cluster.engine.levers.importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="triton"):
        check_levers(EngineSettings(compile="default"), torch.device("cuda"))
    graphs = replace(RUN, engine=EngineSettings(compile="default", cuda_graphs=True))
    with pytest.raises(InputError, match=r"engine\.cuda_graphs must be false where a step has 2 micro-batches"):
        build_engine(graphs, PoseNetwork(TINY), World(), 2, CPU)
