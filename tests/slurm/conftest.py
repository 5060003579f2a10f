"""One lab for all tests of this folder that leave it as they found it; drills boot their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import drill
import lab as slurm_lab


@pytest.fixture(scope="session")
def lab() -> Iterator[slurm_lab.Lab]:
    """A running Slurm of four idle nodes with two fake GPUs each."""
    if reason := slurm_lab.missing():
        pytest.skip(reason)
    with slurm_lab.Lab(nodes=4, gpus=2) as running:
        yield running


@pytest.fixture(scope="session")
def undisturbed(
    lab: slurm_lab.Lab, shard_sets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, float]:
    """Step to loss of a training on two nodes that nothing happens to."""
    training = drill.start(lab, tmp_path_factory.mktemp("undisturbed"), shard_sets)
    training.wait_end()
    assert training.steps() == list(range(1, drill.STEPS + 1))
    return training.losses()
