"""DeepSpeed's engine behind the few calls that the training loop makes."""

import functools
import logging
import os
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from jaxtyping import Float

from cluster.engine.batchnorm import share_momentum
from cluster.engine.recompute import recompute_blocks
from cluster.settings import EngineSettings
from cluster.watch import Store
from cluster.world import World, cores_per_rank
from poselib.errors import InputError

_WITH_WEIGHTS: Final = [f"torch.nn.{name}" for name in ("Linear", "Conv2d", "ConvTranspose2d")]


def choose_device(setting: str, local_rank: int = 0) -> torch.device:
    """The device that `setting` (`auto`, `cpu`, `cuda`) means for a process.

    Raises:
        InputError: CUDA is wanted and missing, or has fewer devices than processes.
    """
    if setting == "cpu" or (setting == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError("engine.device is cuda, but this machine shows no CUDA device; take cpu or auto")
    visible = torch.cuda.device_count()
    if local_rank >= visible > 1:
        raise InputError(
            f"process {local_rank} of this node has no GPU: {visible} are visible; start one process per GPU"
        )
    # A launcher that binds each process to a GPU shows it that one alone; `join_world` finds two on the same.
    return torch.device("cuda", local_rank if visible > 1 else 0)


def check_precision(setting: str, device: torch.device) -> None:
    """Refuse a precision that the device would only imitate.

    Raises:
        InputError: bf16 on a GPU without it. CPUs compute it all, some slowly.
    """
    if setting != "bf16" or device.type != "cuda":
        return
    with torch.cuda.device(device):
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    if not able:
        raise InputError(
            f"engine.precision must be fp32 on {torch.cuda.get_device_name(device)}, not bf16: GPUs compute that from"
            " compute capability 8.0 on (A100, RTX 30, and newer), CPUs always"
        )


def compile_mode(settings: EngineSettings) -> str:
    """torch.compile's name for `compile` with or without `cuda_graphs`."""
    names = {
        ("default", False): "default",
        ("default", True): "reduce-overhead",
        ("max-autotune", False): "max-autotune-no-cudagraphs",
        ("max-autotune", True): "max-autotune",
    }
    return names[settings.compile, settings.cuda_graphs]


def join_world(world: World, settings: EngineSettings, device: torch.device) -> None:
    """Connect this process with the others and fix its threads.

    Raises:
        InputError: two processes have the same GPU.
    """
    torch.set_num_threads(settings.threads or cores_per_rank(world))
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ["LOCAL_RANK"] = str(device.index)  # by which DeepSpeed chooses
    _import_deepspeed(device).init_distributed(
        "nccl" if device.type == "cuda" else "gloo",
        auto_mpi_discovery=False,
        timeout=timedelta(seconds=settings.timeout_s),
        verbose=False,
    )
    if device.type == "cuda" and world.size > 1:
        card = str(torch.cuda.get_device_properties(device).uuid)
        refuse_shared_card(dist.distributed_c10d._get_default_store(), world, card)


def refuse_shared_card(store: dist.Store, world: World, card: str) -> None:
    """Refuse processes that compute on the same GPU, which NCCL would report as an error of its own.

    Args:
        store: shared by all ranks.
        world: this process' place.
        card: what tells its GPU from all others.

    Raises:
        InputError: names the ranks.
    """
    keys = [f"card/{rank}" for rank in range(world.size)]
    store.set(keys[world.rank], card)
    same = [rank for rank, other in enumerate(store.multi_get(keys)) if other.decode() == card]
    if len(same) > 1:
        raise InputError(
            f"ranks {', '.join(map(str, same))} were given the same GPU, {card}; start one process per GPU, and bind"
            " each to another one, or none to any (docs/cluster.md, GPU binding)"
        )


def shared_store() -> Store | None:
    """Keys and values that all ranks see, over connections of its own: it answers while collectives hang."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    return dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]


def leave_world() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        from deepspeed import comm

        comm.destroy_process_group()  # torch's own would leave DeepSpeed with groups that are gone


class Engine:
    """A model under DeepSpeed: gradients, accumulation, clipping, ZeRO and mixed precision are its own.

    Args:
        model: plain torch, on no particular device.
        optimizer: torch's, over the model's parameters.
        settings: precision, ZeRO stage, and what `check_levers` has nothing against.
        world: this process' place.
        micro: samples of a micro-batch.
        accumulation: micro-batches per optimiser step and rank.
        clip: largest norm of the gradient; 0 does not clip.
        device: to compute on.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: EngineSettings,
        world: World,
        micro: int,
        accumulation: int,
        clip: float,
        device: torch.device,
    ) -> None:
        config: dict[str, Any] = {
            "train_micro_batch_size_per_gpu": micro,
            "gradient_accumulation_steps": accumulation,
            "train_batch_size": micro * accumulation * world.size,
            "gradient_clipping": clip,
            "zero_optimization": {
                "stage": settings.zero_stage,
                "reduce_bucket_size": settings.bucket_mb * 10**6 // 4,
                "overlap_comm": settings.overlap,
            },
            "communication_data_type": settings.exchange,
            # The engine must not cast the model as a whole: BatchNorm stays float32.
            "torch_autocast": {
                "enabled": settings.precision == "bf16",
                "dtype": "bfloat16",
                # ZeRO exchanges the gradients of these, and of these alone, in the type of the autocast.
                "lower_precision_safe_modules": _WITH_WEIGHTS if settings.exchange == "bf16" else [],
            },
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 2**31,
            # By default it waits for the whole device twice a step, to time what we time ourselves.
            "timers": {"throughput": {"enabled": False}},
        }
        share_momentum(model, accumulation)
        model.to(device)
        self.deepspeed, *_ = _import_deepspeed(device).initialize(
            model=model, optimizer=optimizer, config=config, dist_init_required=False
        )
        if settings.zero_stage == 0 and settings.channels_last:
            # DeepSpeed broadcasts parameters as bytes, which wants them contiguous; ZeRO keeps them as views into one
            # flat buffer, where they must stay. The pictures are channels_last at every stage.
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if settings.zero_stage == 0:
            # Its own setting of the bucket is for the other stages; and alone there is nobody to exchange with.
            bucket = settings.bucket_mb * 10**6 // 4
            self.deepspeed.allreduce_gradients = functools.partial(self.deepspeed.allreduce_gradients, bucket)
            self.deepspeed.enable_backward_allreduce = world.size > 1
        if settings.activation_checkpointing:
            recompute_blocks(model)
        if settings.compile != "off":
            self.deepspeed.compile(compile_kwargs={"mode": compile_mode(settings), "dynamic": False})
        self.settings = settings
        self.model = model
        self.optimizer = optimizer
        self.accumulation = accumulation
        self.device = device
        self._zero = self.deepspeed.optimizer if settings.zero_stage else None

    def forward(self, inputs: Float[torch.Tensor, "b 3 h w"], output: str = "joints") -> torch.Tensor:
        """What the network says of normalised crops; `output` as in `PoseNetwork.forward`."""
        if not self.settings.channels_last:
            inputs = inputs.contiguous()
        if self.settings.cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        return self.deepspeed(inputs, output=output)

    def backward(self, loss: Float[torch.Tensor, ""]) -> None:
        """Add one micro-batch's gradient; the mean over micro-batches and ranks is DeepSpeed's to take."""
        self.deepspeed.backward(loss)

    def step(self) -> None:
        """Update the weights after the last micro-batch of a step; nothing before."""
        self.deepspeed.step()

    def set_lr(self, lr: float) -> None:
        """The rate of the coming update."""
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = lr

    def gather(self, keep: bool) -> dict[str, torch.Tensor]:
        """A copy of the whole state on the host, see `cluster/engine/state.py`, for the ranks that `keep` it."""
        from cluster.engine.state import gather

        return gather(self.model, self.optimizer, self._zero, keep)

    def misfit(self, state: dict[str, torch.Tensor]) -> str:
        """Why a state cannot be restored into this model; empty where it can."""
        from cluster.engine.state import misfit

        return misfit(self.model, state)

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from what `gather` gave, in whatever world and at whatever ZeRO stage that was."""
        from cluster.engine.state import restore

        restore(self.model, self.optimizer, self._zero, state)

    def grad_norm(self) -> float | None:
        """Norm of the last update's gradient before clipping, where DeepSpeed tells it."""
        norm = self.deepspeed.get_global_grad_norm()
        return None if norm is None else float(norm)


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, silent, and without the extensions that it would compile on first use."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    for name in ("DeepSpeed", "deepspeed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import deepspeed
    import deepspeed.utils.logging as ds_logging

    ds_logging.logger.setLevel(logging.ERROR)
    # The shared-memory collective of CPU builds is compiled on first use, for minutes, and a killed build leaves a lock
    # on which every later run hangs. Gloo serves as well.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
