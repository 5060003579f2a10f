"""One lab for all tests of this folder that leave it as they found it; drills boot their own."""

from collections.abc import Iterator

import pytest

import lab as slurm_lab


@pytest.fixture(scope="session")
def lab() -> Iterator[slurm_lab.Lab]:
    """A running Slurm of four idle nodes with two fake GPUs each."""
    if reason := slurm_lab.missing():
        pytest.skip(reason)
    with slurm_lab.Lab(nodes=4, gpus=2) as running:
        yield running
