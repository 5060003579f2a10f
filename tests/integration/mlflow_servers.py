"""Servers of MLflow's as processes, and a run that they can be given."""

import os
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import torch

from cluster.tracking.journal import Journal
from cluster.weights import SavedModel, save_model
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the address answers; the log is what a failure says."""
    end = time.monotonic() + 180
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session, and those that it has started."""
    os.killpg(process.pid, 15)
    process.wait(60)


def make_run(folder: Path) -> Path:
    """A trained run, as far as MLflow looks; crops are stretched, which a weights file alone does not say."""
    folder.mkdir()
    torch.manual_seed(0)
    network = PoseNetwork(ModelSettings("resnet10", 4, 64, 96, 8, 2000.0, (1, 2), 0, 8, 2)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    save_model(folder / "model.safetensors", SavedModel(network, 7, 99.0, np.zeros((17, 3))))
    (folder / "run.yaml").write_text("crop: {aspect: stretch}\ntracking: {enabled: false}\n")
    with Journal(folder) as journal:
        journal.params({"model.backbone": "resnet10"})
        journal.metrics(1, {"train/loss": 1.0, "val/mpjpe_mm": 99.0})
        journal.status("finished")
    return folder
