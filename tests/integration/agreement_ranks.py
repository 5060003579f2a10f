"""One rank of test_agreement.py: does what the words say, and tells how it would end."""

import errno
import json
import sys
import time
from pathlib import Path

import torch

from cluster.agreement import from_main, on_every_rank, stay_until_main
from cluster.endings import SaidByMain, writing
from cluster.engine.checkpoint import Checkpoints
from cluster.engine.engine import join_world, leave_world
from cluster.fence import Fence
from cluster.settings import EngineSettings
from cluster.world import World, current_world
from poselib.errors import InputError


class FakeEngine:
    """Has one number for its state."""

    def gather(self, keep: bool) -> dict[str, torch.Tensor]:
        return {"value": torch.zeros(1)}


def full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "pictures/x.jpg")


def save_model(folder: Path) -> None:
    with writing(folder / "model.safetensors"), Path("/dev/full").open("wb", buffering=0) as disk:
        disk.write(b"weights")


def act(word: str, world: World, folder: Path) -> None:
    """What `word` stands for."""
    last = world.rank == world.size - 1
    if word == "main":
        from_main(full_disk, world)
    elif word == "model":
        from_main(lambda: save_model(folder), world)
    elif word == "one":
        on_every_rank(lambda: full_disk() if last else None, world)
    elif word == "older":
        on_every_rank(lambda: Fence(folder, 0).check() if last else None, world)
    elif word == "checkpoint":
        checkpoints = Checkpoints(folder / "checkpoints", world.rank, 1, Fence(folder, 1))
        checkpoints.save(FakeEngine(), 10, {})  # type: ignore[arg-type]
    elif word == "slow":
        time.sleep(2 if world.is_main else 0)
        stay_until_main(world, 60)
    elif not world.is_main:  # who has gone
        stay_until_main(world, 60, "gone")


def main(folder: Path, words: list[str]) -> None:
    """Tell for each word what was said and with which code a rank would end."""
    world = current_world()
    assert world is not None
    join_world(world, EngineSettings(timeout_s=60, threads=1), torch.device("cpu"))
    for word in words:
        told: dict[str, object] = {"word": word, "said": "", "code": 0}
        try:
            act(word, world, folder)
        except SaidByMain as ending:
            told["code"] = ending.code
        except InputError as error:
            told |= {"said": str(error), "code": getattr(error, "exit_code", 1)}
        print(json.dumps(told | {"time": time.time()}), flush=True)
    leave_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
