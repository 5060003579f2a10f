"""Time and extra memory of every form of the soft-argmax, forward and backward, in one run.

`naive` is softmax and three plain marginal sums under autograd: the form of the published code, and the measure of all
others. Two tables: from logits, and from the features before the last 1x1 convolution, which the chunked form swallows.

Extra memory is the growth of the process' peak resident memory over one step after the inputs are made, each form in
a process of its own. Times are medians over rounds in which the forms take turns, so that a noisy machine is noisy
for all of them. `--memory FORM STAGE` is the child process.

GB/s, of the forms from logits, is what none can do without (logits read twice, their gradient written once) over the
time, beside the rate of a plain copy. On a GPU the compiled `flat` form takes part.

    python benchmarks/soft_argmax.py [--rounds 5] [--batch 2] [--channels-last] [--device cuda] [--bf16]
"""

import argparse
import functools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from cluster.bench.about import about
from poselib.model.integral import cell_positions, projected_soft_argmax, soft_argmax

JOINTS, DEPTH, HEIGHT, WIDTH, CHANNELS = 17, 72, 96, 72, 256
FORMS = {"logits": ["naive", "reference", "recompute"], "features": ["naive", "recompute", "chunked"]}
TARGETS = {("logits", "recompute"): (1.8, 0.35), ("features", "chunked"): (0.0, 0.10)}
"""At least so many times as fast as naive, with at most that share of its extra memory: on a CPU at batch 2."""


def naive(logits: Tensor) -> Tensor:
    """Softmax and three marginals, each summed from the whole volume."""
    volume = logits.float().unflatten(1, (-1, DEPTH))
    p = volume.flatten(2).softmax(dim=-1).view(volume.shape)
    marginals = [p.sum(dim=(2, 3)), p.sum(dim=(2, 4)), p.sum(dim=(3, 4))]
    axes = [cell_positions(m.shape[-1], "center", device=m.device) for m in marginals]
    return torch.stack([(m * axis).sum(dim=-1) for m, axis in zip(marginals, axes, strict=True)], dim=-1)


def inputs(stage: str, arguments: argparse.Namespace) -> list[Tensor]:
    """What the gradient is taken of: logits, or features with weight and bias."""
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        made = torch.randn(*shape, generator=generator).to(arguments.device)
        made = made.bfloat16() if arguments.bf16 else made
        return (made.to(memory_format=layout) if len(shape) == 4 else made).requires_grad_()

    if stage == "logits":
        return [leaf(arguments.batch, JOINTS * DEPTH, HEIGHT, WIDTH)]
    return [
        leaf(arguments.batch, CHANNELS, HEIGHT, WIDTH),
        leaf(JOINTS * DEPTH, CHANNELS, 1, 1),
        leaf(JOINTS * DEPTH),
    ]


@functools.cache
def compiled_flat() -> Callable[[Tensor], Tensor]:
    """`flat` as torch.compile makes it."""
    return torch.compile(lambda logits: soft_argmax(logits, DEPTH, "center", "flat"), dynamic=False)


def step(form: str, stage: str, leaves: list[Tensor]) -> list[Tensor]:
    """Forward and backward once; the gradients."""
    if form == "flat":
        out = compiled_flat()(leaves[0])
    elif stage == "logits":
        out = naive(leaves[0]) if form == "naive" else soft_argmax(leaves[0], DEPTH, "center", form)  # type: ignore[arg-type]
    elif form == "naive":
        out = naive(F.conv2d(*leaves))
    else:
        out = projected_soft_argmax(*leaves, DEPTH, "center", form)  # type: ignore[arg-type]
    weights = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
    return list(torch.autograd.grad((out * weights).sum(), leaves))


def extra_mib(form: str, stage: str, arguments: argparse.Namespace) -> float:
    """Peak memory of a step beyond its inputs, MiB, measured in this fresh process."""
    leaves = inputs(stage, arguments)
    if arguments.device == "cuda":
        step(form, stage, leaves)  # compiles, and opens libraries
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(form, stage, leaves)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Libraries make themselves at home on their first call: on a volume too small to count, in every layout used.
    small = [leaf.detach()[:, :, :2, :2].clone().requires_grad_() if leaf.dim() == 4 else leaf for leaf in leaves]
    step(form, stage, small)
    # Reset the peak to what is resident now (Linux), or the inputs' own making would hide small growth.
    with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123
        file.write("5")
    before = _peak_kib()
    step(form, stage, leaves)
    return (_peak_kib() - before) / 1024


def _peak_kib() -> int:
    for line in open("/proc/self/status"):  # noqa: PTH123, SIM115
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure_memory(form: str, stage: str) -> float:
    """`extra_mib` in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory", form, stage]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def measure_times(forms: list[str], stage: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step for each form, taking turns after one round to warm up."""
    leaves = inputs(stage, arguments)
    synchronise: Callable[[], None] = torch.cuda.synchronize if arguments.device == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(arguments.rounds + 1):
        for form in forms:
            synchronise()
            began = time.perf_counter()
            step(form, stage, leaves)
            synchronise()
            seconds[form].append(time.perf_counter() - began)
    return {form: statistics.median(values[1:]) for form, values in seconds.items()}


def copy_gb_per_s(arguments: argparse.Namespace) -> float:
    """Bytes read and written by copies of a batch's logits, per second; the median of some."""
    source = inputs("logits", arguments)[0].detach()
    target = torch.empty_like(source)
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        target.copy_(source)
        if arguments.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return 2e-9 * source.nbytes / statistics.median(seconds)


def main() -> None:
    """Print JSON lines and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--bf16", action="store_true", help="logits, features and weights in bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", nargs=2, metavar=("FORM", "STAGE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        print(json.dumps(extra_mib(*arguments.memory, arguments)))
        return
    print(json.dumps({"about": about()}), flush=True)
    copy = copy_gb_per_s(arguments)
    title = f"a plain copy: {copy:.1f} GB/s"
    table = Table(
        "from", "form", "ms", "times as fast", "extra MiB", "share of naive's", "GB/s", "verdict", title=title
    )
    least = 3e-9 * arguments.batch * JOINTS * DEPTH * HEIGHT * WIDTH * (2 if arguments.bf16 else 4)
    for stage, named in FORMS.items():
        forms = [*named, "flat"] if stage == "logits" and arguments.device == "cuda" else named
        memory = {form: measure_memory(form, stage) for form in forms}
        times = measure_times(forms, stage, arguments)
        for form in forms:
            faster, share = times["naive"] / times[form], memory[form] / memory["naive"]
            row = {"from": stage, "form": form, "ms": round(1e3 * times[form], 1), "faster": round(faster, 2)}
            row |= {"extra_mib": round(memory[form], 1), "memory_share": round(share, 3)}
            rate = f"{least / times[form]:.1f}" if stage == "logits" else ""
            row |= {"gb_per_s": rate, "copy_gb_per_s": round(copy, 2)}
            verdict = ""
            if (stage, form) in TARGETS and arguments.device == "cpu" and not arguments.bf16:
                fast, lean = TARGETS[stage, form]
                verdict = "reached" if faster >= fast and share <= lean else "missed"
                verdict += f": {f'{fast}, ' if fast else ''}{lean:.0%} wanted"
            print(json.dumps(row | {"verdict": verdict}))
            cells = (f"{1e3 * times[form]:.0f}", f"{faster:.2f}", f"{memory[form]:.1f}", f"{share:.1%}")
            table.add_row(stage, form, *cells, rate, verdict)
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
