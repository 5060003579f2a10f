"""The optional detector: people alone, sure ones, and one line where it is not there."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from cluster.predict.detector import torchvision_detector
from cluster.predict.settings import PredictSettings
from poselib.errors import InputError

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")


class Network(torch.nn.Module):
    """Answers as torchvision's detectors do: a person, a doubtful one, and a dog, where the brightest row is."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = torch.nn.Parameter(torch.zeros(()))

    def forward(self, pictures: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        (picture,) = pictures
        assert picture.shape[0] == 3
        assert not self.training
        assert picture.max() <= 1
        top = picture.mean(dim=(0, 2)).argmax() + self.offset
        boxes = torch.stack([torch.stack([torch.tensor(5.0), top, torch.tensor(25.0), top + 40])] * 3)
        return [{"boxes": boxes, "labels": torch.tensor([1, 1, 18]), "scores": torch.tensor([0.9, 0.3, 0.9])}]


@pytest.fixture
def installed(monkeypatch):
    """A package of torchvision's name, with the one function that is used."""
    detection = ModuleType("torchvision.models.detection")
    detection.fasterrcnn_mobilenet_v3_large_fpn = lambda weights, weights_backbone: Network()
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchvision.models.detection", detection)


def test_people_are_found_with_the_weights_of_the_file(installed, tmp_path):
    torch.save({"offset": torch.tensor(3.0)}, tmp_path / "w.pth")
    picture = np.zeros((100, 60, 3), np.uint8)
    picture[20] = 255
    found = torchvision_detector(tmp_path / "w.pth", CPU)(picture)
    assert found.tolist() == [[5, 23, 20, 40]]


def test_other_weights_are_refused(installed, tmp_path):
    torch.save({"else": torch.tensor(3.0)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth holds other weights than detector"):
        torchvision_detector(tmp_path / "w.pth", CPU)
    torch.save(Path, tmp_path / "w.pth")
    with pytest.raises(InputError, match="more than tensors"):
        torchvision_detector(tmp_path / "w.pth", CPU)
    with pytest.raises(InputError, match="No such file"):
        torchvision_detector(tmp_path / "nowhere.pth", CPU)


def test_a_detector_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(InputError, match="detector torchvision is not installed for this torch"):
        torchvision_detector(Path("w.pth"), CPU)


@pytest.mark.parametrize("words", [{"detector": "torchvision"}, {"detector_weights": Path("w.pth")}])
def test_detector_and_weights_stand_together(words):
    with pytest.raises(ValueError, match="detector_weights must stand beside detector torchvision"):
        PredictSettings(inputs=("a.jpg",), run=Path("x"), **words)
