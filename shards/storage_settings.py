"""How shard sets are reached. No torch here."""

import math
from dataclasses import dataclass
from pathlib import Path

from poselib.settings import check_at_least


@dataclass(frozen=True)
class StorageSettings:
    """How shard sets are reached that lie behind URLs or on slow disks.

    Attributes:
        cache: folder for shards from URLs, which the processes of a machine share; null takes `posecluster/shards` in
            $XDG_CACHE_HOME, or in ~/.cache.
        cache_gb: how much it may hold, 10^9 bytes; shards unused for longest go first.
        attempts: how often a read is tried before it counts as failed.
        backoff_s: pause after the first failure; each further one is twice as long.
    """

    cache: Path | None = None
    cache_gb: float = 50.0
    attempts: int = 5
    backoff_s: float = 0.2

    def __post_init__(self) -> None:
        """Check every value; errors name the setting and the valid range."""
        if not 0 < self.cache_gb < math.inf:
            raise ValueError(f"cache_gb must be above 0, not {self.cache_gb}")
        check_at_least(self, 1, "attempts")
        check_at_least(self, 0, "backoff_s")
