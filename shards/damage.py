"""Reading a micro-batch's samples where some of them are damaged.

Under `skip` the place of a damaged sample is taken by the next sound one of the same micro-batch, counted on from its
place and from the end to the beginning. So the stand-in depends on the micro-batch alone: not on ranks, prefetching or
a restart; and the order of everything else stays what it was. A stand-in is drawn as at its own place, so that its
crop is the same at both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np

from poselib.errors import InputError
from shards.manifest import DamagedSample, ShardSet
from shards.order import Draws

Policy = Literal["error", "skip"]
Spot = tuple[int, int]
"""A sample's source, and its place among the source's samples."""


class Readable(Protocol):
    """Some samples of a shard set."""

    @property
    def shards(self) -> ShardSet:
        """The set."""

    @property
    def rows(self) -> np.ndarray:
        """Which of its samples."""


@dataclass(frozen=True, eq=False)
class Reading:
    """The samples of a micro-batch.

    Attributes:
        draws: where they come from, stand-ins at the places of damaged ones.
        jpegs: encoded pictures, uint8 `n` each.
        vectors: float32 `b NUMERIC_SIZE`.
        replaced: a line for each damaged sample.
    """

    draws: Draws
    jpegs: list[np.ndarray]
    vectors: np.ndarray
    replaced: tuple[str, ...]


def read_samples(
    sources: Sequence[Readable], draws: Draws, policy: Policy, known: Mapping[Spot, str] | None = None
) -> Reading:
    """The samples of a micro-batch, in its order.

    Args:
        sources: what the draws count into.
        draws: which samples.
        policy: what to do about damaged ones.
        known: samples that have proved to be no pictures, with the line about each.

    Raises:
        DamagedSample: under `error`, a sample is damaged.
        InputError: all samples are, or a file cannot be read, however often it is tried.
    """
    found: list[tuple[np.ndarray, np.ndarray] | None] = []
    lines = []
    for spot in zip(draws.source.tolist(), draws.sample.tolist(), strict=True):
        try:
            if known and spot in known:
                raise DamagedSample(known[spot])
            source = sources[spot[0]]
            found.append(source.shards.read_one(int(source.rows[spot[1]])))
        except DamagedSample as error:
            if policy == "error":
                raise
            found.append(None)
            lines.append(str(error))
    sound = [place for place, sample in enumerate(found) if sample is not None]
    if not sound:
        raise InputError(f"all {len(found)} samples of a micro-batch are damaged, the first: {lines[0]}")
    if len(sound) < len(found):
        following = np.searchsorted(sound, np.arange(len(found))) % len(sound)
        chosen = np.asarray(sound)[following]
        draws = Draws(draws.source[chosen], draws.turn[chosen], draws.sample[chosen])
        found = [found[place] for place in chosen]
    whole = [sample for sample in found if sample is not None]
    return Reading(draws, [jpeg for jpeg, _ in whole], np.stack([vector for _, vector in whole]), tuple(lines))


def undecodable(sources: Sequence[Readable], reading: Reading) -> dict[Spot, str]:
    """Those of a micro-batch's samples that OpenCV cannot decode, with a line about each."""
    bad = {}
    for place, jpeg in enumerate(reading.jpegs):
        if cv2.imdecode(jpeg, cv2.IMREAD_COLOR) is None:
            spot = int(reading.draws.source[place]), int(reading.draws.sample[place])
            source = sources[spot[0]]
            bad[spot] = str(source.shards.damaged(int(source.rows[spot[1]]), "is no JPEG"))
    return bad
