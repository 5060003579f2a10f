"""`pose submit train` on a real Slurm: ranks of two nodes stop together at USR1, are requeued once, and go on."""

import random
import re
from pathlib import Path

import pytest

import drill
from drill import STEPS, Training, pose
from lab import Lab, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.drill]


def submit(lab: Lab, folder: Path, shard_sets: dict[str, Path], *words: str) -> tuple[int, str]:
    folder.mkdir()
    (folder / "drill.yaml").write_text(drill._CONFIG.format(**shard_sets))
    said = pose(lab, folder, "submit", "train", "--config", "drill.yaml", "--job.cpus", "2", *words)
    return int(re.search(r"submitted train-drill as job (\d+)", said)[1]), said


def test_a_job_that_is_asked_to_stop_is_requeued_once_and_ends_with_every_step(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path, undisturbed: dict[int, float]
) -> None:
    folder = tmp_path / "job"
    job, said = submit(lab, folder, shard_sets, "--job.nodes", "2")
    assert "world            2 = 2 nodes x 1 rank" in said
    training = Training(lab, folder, job)
    training.wait_step(random.randint(2, 25))
    lab.run(["scancel", "--signal=USR1", str(job)])
    lab.run(["scancel", "--signal=USR1", str(job)])
    # By now it runs, leaves, or waits for its next start.
    assert re.search(rf" {job} +drill +\w+( \(.*?\))? +\d+ +\d+", pose(lab, folder, "jobs"))
    logs = pose(lab, folder, "logs", str(job))  # follows until the end
    assert training.wait_end()["Restarts"] == "1"
    assert training.steps() == list(range(1, STEPS + 1)), "a step was done twice, or lost"
    assert training.losses() == undisturbed
    assert "0: stopped by SIGUSR1" in logs
    assert re.search(r"^0: job \d+ goes back into the queue, as it was asked to stop", logs, re.MULTILINE)
    assert re.search(r"^1: .*hostname=n2", logs, re.MULTILINE)
    assert "\x1b" not in logs, "a progress bar went into the log"
    [code] = (folder / "runs" / "jobs" / "drill" / "code").iterdir()
    assert str(code) in (folder / "runs" / "jobs" / "drill" / f"{job}_submission.sh").read_text()
    assert re.search(rf" {job} +drill +completed +{STEPS} ", pose(lab, folder, "jobs"))


def test_seeds_are_an_array_whose_tasks_are_requeued_each_for_itself(
    lab: Lab, shard_sets: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    job, said = submit(lab, folder, shard_sets, "--seeds", "[3,4]", "--epochs", "4")
    assert "of 2 tasks" in said
    steps = STEPS // 2
    journals = [folder / "runs" / f"drill-seed{seed}" / "metrics.jsonl" for seed in (3, 4)]

    def logged(journal: Path) -> list[int]:
        lines = journal.read_text().splitlines() if journal.is_file() else []
        return [int(found[1]) for line in lines if (found := re.search(r'"step": (\d+), .*train/loss', line))]

    wait_until(
        lambda: len(logged(journals[1])) >= 2, 120, lambda: pose(lab, folder, "logs", str(job), "--follow=false")
    )
    # The task whose own number is the array's: to requeue by that number would requeue both.
    lab.run(["scancel", "--signal=USR1", f"{job}_1"])
    pose(lab, folder, "logs", str(job))
    assert [logged(journal) for journal in journals] == [list(range(1, steps + 1))] * 2
    shown = {number: lab.run(["scontrol", "show", "job", "-o", f"{job}_{number}"]).stdout for number in (0, 1)}
    assert f"JobId={job} " in shown[1]
    assert [re.search(r"Restarts=(\d)", shown[number])[1] for number in (0, 1)] == ["0", "1"]
    listed = pose(lab, folder, "jobs")
    assert re.search(rf" {job}_1 +drill-seed4 +completed +{steps} ", listed), listed
