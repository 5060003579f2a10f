"""How DeepSpeed's checkpoint files are written and read. Imports DeepSpeed: only after the device is known."""

from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine


class SafeFiles(TorchCheckpointEngine):
    """DeepSpeed's files, read without running anything that a pickle may carry.

    A failed write is kept in `problem` instead of raised: DeepSpeed's save is collective, and a rank that left it half
    way would leave the others waiting.
    """

    problem = ""

    def save(self, state_dict: Any, path: str) -> None:
        """Write one file."""
        try:
            torch.save(state_dict, path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            self.problem = " ".join(str(error).split())[:200]

    def load(self, path: str, map_location: Any = None) -> Any:
        """Read one file: tensors and plain containers, nothing else."""
        return torch.load(path, map_location=map_location, weights_only=True)
