"""Evaluation, prediction and export read a model as tensors alone; test_checkpoints.py has what a run resumes from."""

import io
import pickle
from pathlib import Path

import pytest
import torch

from cluster.weights import load_model
from poselib.errors import InputError

pytestmark = pytest.mark.unit


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["plain", "zip"])
def test_a_pickle_in_the_place_of_a_model_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    payload, content = Payload(tmp_path / "owned"), io.BytesIO()
    torch.save({"weight": payload}, content)
    file = tmp_path / "model.safetensors"
    file.write_bytes(pickle.dumps({"weight": payload}) if form == "plain" else content.getvalue())
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_model(file, torch.device("cpu"))
    assert not (tmp_path / "owned").exists()
    pickle.loads(file.read_bytes()) if form == "plain" else torch.load(
        io.BytesIO(file.read_bytes()), weights_only=False
    )
    assert (tmp_path / "owned").is_dir(), "the payload itself does not work"
