"""`sbatch slurm/train.sh`: `pose jobs` and `pose logs` know the job, and no edit after its start reaches it."""

import os
import re
import signal
from pathlib import Path

import pytest

import drill
from cluster import keys
from drill import STEPS, pose
from lab import Lab

pytestmark = [pytest.mark.slurm, pytest.mark.drill]


def test_a_requeued_job_goes_on_as_it_began(shard_sets: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "edited.py").write_text("raise RuntimeError('edited code')\n")
    with Lab(nodes=2) as lab:
        training = drill.start(lab, tmp_path / "job", shard_sets, "--engine.timeout-s=600")
        training.wait_step(2)
        job, ranks = training.job, [drill.rank_pids(lab, node)[0] for node in ("n1", "n2")]
        for rank in ranks:
            os.kill(rank, signal.SIGSTOP)  # they would be at the end before all this is done
        assert re.search(rf" {job} +drill +running \(n\[1-2\]\) +\d+ +\d+", pose(lab, training.folder, "jobs"))
        (training.folder / "drill.yaml").write_text("epochs: none\n")
        for node in ("n1", "n2"):
            lab.run(["mount", "--bind", tmp_path / "edited.py", keys.__file__], node=node)
        for rank in ranks:
            os.kill(rank, signal.SIGCONT)
        lab.run(["scancel", "--signal=USR1", str(job)])
        logs = pose(lab, training.folder, "logs", "drill")  # follows until the end
        assert training.wait_end()["Restarts"] == "1"
        assert training.steps() == list(range(1, STEPS + 1))
        assert re.search(r"^0: stopped by SIGUSR1", logs, re.MULTILINE), logs
        assert f"\njob {job} goes back into the queue, as it was asked to stop" in logs
        assert re.search(rf" {job} +drill +completed +{STEPS} ", pose(lab, training.folder, "jobs"))
