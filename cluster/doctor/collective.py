"""An all-reduce among the leads of all nodes: `python -m cluster.doctor.collective BACKEND TIMEOUT_S`.

It meets over the store that the doctor's rank 0 already serves. A collective that hangs ends with this process.
"""

import os
import sys
import time
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist

from cluster.world import World, current_world

_ROUNDS: Final = 3
_FLOATS: Final = {"gloo": 2 * 2**20, "nccl": 16 * 2**20}


def measure(backend: str, world: World, timeout_s: float) -> float:
    """Add up ones over all ranks; returns the best time of one all-reduce, s.

    Raises:
        RuntimeError: the sum is wrong, or torch's own complaint.
    """
    # A hang shall raise, not end the process by a watchdog's abort.
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    timeout = timedelta(seconds=timeout_s)
    store = dist.TCPStore(world.address, world.port, is_master=False, wait_for_workers=False, timeout=timeout)
    group = dist.PrefixStore("all-reduce", store)
    dist.init_process_group(backend, store=group, rank=world.rank, world_size=world.size, timeout=timeout)
    device = torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu")
    best = float("inf")
    for _ in range(_ROUNDS):
        ones = torch.ones(_FLOATS[backend], device=device)
        began = time.monotonic()
        dist.all_reduce(ones)
        total = float(ones[-1])
        best = min(best, time.monotonic() - began)
        if total != world.size:
            raise RuntimeError(f"the sum over {world.size} nodes came out as {total}")
    dist.destroy_process_group()
    return best


if __name__ == "__main__":
    own = current_world()
    assert own is not None
    seconds = measure(sys.argv[1], own, float(sys.argv[2]))
    size = 4 * _FLOATS[sys.argv[1]]
    print(f"{size >> 20} MiB over {own.size} nodes in {seconds * 1000:.0f} ms")
