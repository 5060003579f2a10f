"""How busy rank 0's node is, under the names that MLflow shows as system metrics."""

import time
from typing import Final

import psutil
import torch

EVERY_S: Final = 10.0
"""MLflow's own interval."""
_MB: Final = 1e6


class SystemMetrics:
    """Reads the node's counters; network traffic counts from here on."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s, self._last = every_s, -every_s
        self._network = psutil.net_io_counters()
        psutil.cpu_percent()  # the first answer is always 0

    def due(self) -> dict[str, float]:
        """The values by name (`system/cpu_utilization_percentage`, ...); nothing if the last ones are too fresh."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            return {}
        self._last = now
        memory, disk, network = psutil.virtual_memory(), psutil.disk_usage("/"), psutil.net_io_counters()
        values = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MB,
            "system_memory_usage_percentage": memory.percent,
            "disk_usage_megabytes": disk.used / _MB,
            "disk_usage_percentage": disk.percent,
        }
        if network is not None and self._network is not None:  # a container may have no interface at all
            values["network_receive_megabytes"] = (network.bytes_recv - self._network.bytes_recv) / _MB
            values["network_transmit_megabytes"] = (network.bytes_sent - self._network.bytes_sent) / _MB
        return {f"system/{name}": float(value) for name, value in (values | _gpus()).items()}


def _gpus() -> dict[str, float]:
    """Of the GPUs that this process has memory of; utilisation only where NVIDIA's library can be asked."""
    values: dict[str, float] = {}
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return values
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        values[f"gpu_{index}_memory_usage_megabytes"] = (total - free) / _MB
        values[f"gpu_{index}_memory_usage_percentage"] = 100 * (1 - free / total)
        try:
            values[f"gpu_{index}_utilization_percentage"] = torch.cuda.utilization(index)
        except (ModuleNotFoundError, RuntimeError):  # no nvidia-ml-py, or it may not ask
            continue
    return values
