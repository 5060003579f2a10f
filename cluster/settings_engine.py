"""How a run computes: ranks, device, precision, and the levers of its speed and memory. No torch here."""

from dataclasses import dataclass
from typing import Literal

from poselib.settings import check_at_least


@dataclass(frozen=True)
class EngineSettings:
    """How DeepSpeed runs the model.

    Attributes:
        ranks: processes to start on this machine where no launcher did; 0 takes one per GPU, or two without GPUs.
        device: where to train; `auto` takes CUDA where it is.
        precision: `bf16` is autocast; parameters, BatchNorm, softmax and expectation stay float32.
        channels_last: channels lie side by side in memory, as convolutions like them; false is torch's own order.
        compile: torch.compile's mode; `off` runs operator by operator, `max-autotune` searches kernels at length.
        cuda_graphs: replay the compiled step's kernels as one launch: for small batches, whose launches take as long
            as their work. Needs `compile`, and a step of one micro-batch.
        fused_optimizer: update all parameters in one kernel; worlds of other sizes then agree less closely.
        activation_checkpointing: keep only what goes into each residual block, and run it a second time for its
            gradient: less memory, a third more work in the backbone. Not with `compile`.
        exchange: what ranks add their gradients up in; bf16 halves the bytes and rounds each sum.
        bucket_mb: largest piece of an exchange, 10^6 bytes of fp32 gradients.
        overlap: exchange while the backward pass goes on; at ZeRO stages 1 and 2.
        zero_stage: what DeepSpeed shards over the ranks: nothing (0), optimiser state (1), gradients too (2).
        threads: CPU threads of torch per rank; 0 shares the machine's cores out.
        timeout_s: after this long without an answer from another rank, a collective gives up.
    """

    ranks: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    compile: Literal["off", "default", "max-autotune"] = "off"
    cuda_graphs: bool = False
    fused_optimizer: bool = False
    activation_checkpointing: bool = False
    exchange: Literal["fp32", "bf16"] = "fp32"
    bucket_mb: int = 2000
    overlap: bool = False
    zero_stage: Literal[0, 1, 2] = 0
    threads: int = 0
    timeout_s: int = 600

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        check_at_least(self, 0, "ranks", "threads")
        check_at_least(self, 1, "timeout_s", "bucket_mb")
        if self.cuda_graphs and self.compile == "off":
            raise ValueError("cuda_graphs must be false with compile off: graphs are made of compiled steps")
        if self.activation_checkpointing and self.compile != "off":
            raise ValueError(
                "activation_checkpointing must be false with compile: the compiler chooses itself what to run twice"
            )
        if self.overlap and self.zero_stage == 0:
            raise ValueError("overlap must be false at zero_stage 0, which exchanges after the backward pass; take 1")
