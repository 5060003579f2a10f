"""One, two and four nodes train the same model, at the same micro-batch and global batch."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import drill
from drill import Training
from lab import Lab

pytestmark = [pytest.mark.slurm, pytest.mark.drill]

# Sums over ranks in another order differ in the last bit, which training magnifies: a small rate, and few steps.
WORDS = ("--batch.global=16", "--epochs=4", "--validate_every=2", "--optimizer.lr=1e-4")


@pytest.fixture(scope="module")
def runs(lab: Lab, shard_sets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Training]:
    folder = tmp_path_factory.mktemp("worlds")
    found = {}
    for nodes in (1, 2, 4):
        found[nodes] = drill.start(lab, folder / str(nodes), shard_sets, *WORDS, nodes=nodes)
        found[nodes].wait_end()
    return found


def validated(training: Training) -> dict[int, float]:
    lines = [line for line in training.records() if "val/mpjpe_mm" in line.get("values", {})]
    return {line["step"]: line["values"]["val/mpjpe_mm"] for line in lines}


@pytest.mark.parametrize("nodes", [2, 4])
class TestAsOneNode:
    def test_losses(self, runs: dict[int, Training], nodes: int) -> None:
        one, several = runs[1].losses(), runs[nodes].losses()
        assert list(one) == list(several) == list(range(1, 12))
        assert list(several.values()) == pytest.approx(list(one.values()), rel=1e-4)

    def test_validation_score(self, runs: dict[int, Training], nodes: int) -> None:
        one, several = validated(runs[1]), validated(runs[nodes])
        assert list(one) == [6, 11]
        assert several == pytest.approx(one, rel=1e-4)

    def test_weights_and_buffers(self, runs: dict[int, Training], nodes: int) -> None:
        one, several = (load_file(runs[n].run / "last.safetensors") for n in (1, nodes))
        assert one.keys() == several.keys()
        for name, value in one.items():
            if name.endswith("num_batches_tracked"):
                assert several[name] == value == 11 * 4
            else:
                # Adam moves a weight whose gradient is almost 0 by up to its rate per step in either direction.
                tolerance = 1e-4 if "running" in name else 11 * 1e-4 / 20
                np.testing.assert_allclose(several[name], value, rtol=2e-3, atol=tolerance, err_msg=name)
