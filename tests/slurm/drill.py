"""A small training job in the lab, to be disturbed, and what its run folder tells afterwards."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import Job, Lab, LabError, wait_until

SCRIPT = Path(__file__).parents[2] / "slurm" / "train.sh"
STEPS = 44
EVERY = 7
"""Steps of the whole run, and between two checkpoints."""

_CONFIG = """
name: drill
epochs: 8
validate_every: 8
log_every: 1
data: {{h36m: {h36m}, mpii: {mpii}, every_train: 1, every_val: 1, every_test: 1,
  train_subjects: [S1], val_subjects: [S1], test_subjects: [S9]}}
model: {{backbone: resnet18, width: 8, crop_width: 64, crop_height: 64, depth: 4, ppm_bins: [1, 2], ppm_channels: 16,
  decoder_channels: 16, decoder_layers: 1}}
batch: {{micro: 4, global: 8}}
optimizer: {{lr: 1e-3}}
engine: {{device: cpu, threads: 1, timeout_s: 60}}
checkpoint: {{every_steps: 7, keep: 3}}
tracking: {{enabled: false}}
"""


@dataclass(frozen=True)
class Training:
    """One job in a folder of its own."""

    lab: Lab
    folder: Path
    job: int

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "drill"

    def output(self) -> str:
        return self.lab.output(self.job)

    def nodes(self) -> list[str]:
        """The job's nodes, the batch host first."""
        shown = self.lab.run(["scontrol", "show", "hostnames", self.lab.job(self.job)["NodeList"]])
        return shown.stdout.split()

    def records(self) -> list[dict[str, Any]]:
        journal = self.run / "metrics.jsonl"
        lines = journal.read_text().splitlines(keepends=True) if journal.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def steps(self) -> list[int]:
        """The steps in the order in which they were logged, repeated ones too."""
        return [line["step"] for line in self.records() if "train/loss" in line.get("values", {})]

    def losses(self) -> dict[int, float]:
        """Step to loss; what a resumed run logged again replaces the old."""
        from cluster.tracking.journal import curve, read_metrics

        return dict(zip(*curve(read_metrics(self.run), "train/loss"), strict=True))

    def restored(self) -> list[int]:
        """The steps after which the job's later starts went on."""
        return [line["step"] for line in self.records() if line["kind"] == "rewind"][1:]

    def wait_step(self, step: int, seconds: float = 120) -> None:
        """Wait until `step` is logged."""

        def reached() -> bool:
            if self.lab.job(self.job)["JobState"] in ("FAILED", "COMPLETED", "CANCELLED"):
                raise LabError(f"the job ended before step {step}\n{self.output()}")
            return max(self.steps(), default=0) >= step

        wait_until(reached, seconds, lambda: f"step {step} does not come\n{self.output()}", pause=0.05)

    def wait_end(self, seconds: float = 240) -> Job:
        return self.lab.wait(self.job, "COMPLETED", seconds=seconds)


def start(lab: Lab, folder: Path, shard_sets: dict[str, Path], *words: str, nodes: int = 2, **options: str) -> Training:
    """Submit a training over `nodes` nodes; `options` go to sbatch, `words` to `pose train`."""
    folder.mkdir(exist_ok=True)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "drill.yaml").write_text(_CONFIG.format(**shard_sets))
    sbatch = [f"--nodes={nodes}", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]
    return Training(lab, folder, lab.sbatch(*sbatch, SCRIPT, "--config", "drill.yaml", *words, cwd=folder))


def pose(lab: Lab, folder: Path, *words: str) -> str:
    """A command on the login node, whose `python` stands in for the project's."""
    wide = {"COLUMNS": "200", "PYTHONPATH": str(SCRIPT.parents[1])}
    done = lab.run([sys.executable, "-m", "pose", *words], cwd=folder, env=wide, timeout=120)
    return done.stdout + done.stderr


def rank_pids(lab: Lab, node: str) -> list[int]:
    """The `pose train` processes on a node, as seen from outside, the oldest first."""
    namespace = Path(f"/proc/{lab._machines[node].pid}/ns/uts").readlink()
    return sorted(pid for pid in _all_pids() if _is_rank(pid) and _uts(pid) == namespace)


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _is_rank(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return (
        len(words) > 2
        and bool(re.search(rb"python", words[0]))
        and words[1].endswith(b"/pose")
        and words[2] == b"train"
    )


def _uts(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/uts").readlink()
    except OSError:
        return None
