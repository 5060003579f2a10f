"""The usual way, which ours is compared with, is the same training: same loss and gradient on the same batch."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist

from cluster.bench.forms import made_up
from cluster.bench.reference import UsualFrames, UsualTraining, usual_batches
from cluster.settings import BatchSettings, LossSettings, Run
from cluster.settings_data import DataSettings
from poselib.errors import InputError
from poselib.losses import compute_loss
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings
from shards.normalise import normalise

pytestmark = pytest.mark.unit

TINY = ModelSettings(
    **{"backbone": "resnet10", "width": 8, "crop_width": 64, "crop_height": 96, "depth": 4, "ppm_bins": (1, 2)},
    **{"decoder_channels": 16, "decoder_layers": 2},
)
RUN = Run(name="x", data=DataSettings(h36m=""), model=TINY, batch=BatchSettings(micro=4))
CPU = torch.device("cpu")


@pytest.fixture
def alone(tmp_path: Path):
    """A world of one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_it_agrees_with_ours_in_loss_and_gradient(alone) -> None:
    torch.manual_seed(0)
    ours = PoseNetwork(TINY).train()
    torch.manual_seed(0)
    usual = UsualTraining(RUN, CPU)
    usual.model.train()
    # Sharper heat maps than new ones, which are all but flat: a mistake must show in the expectation.
    for network in (ours, usual.model.module.network):
        with torch.no_grad():
            network.decoder.head.weight.mul_(300)
    pictures, gains, targets, weights = made_up(RUN, CPU)
    images = normalise(pictures, gains)
    expected = compute_loss(ours.to(memory_format=torch.channels_last), images, targets, weights, TINY, LossSettings())
    expected.backward()
    found = usual.loss(images.contiguous(), targets, weights)
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for (name, mine), (_, theirs) in zip(
        ours.named_parameters(), usual.model.module.network.named_parameters(), strict=True
    ):
        scale = mine.grad.abs().max().item()
        torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-2, atol=1e-3 * scale, msg=name)
    before = usual.model.module.network.decoder.head.weight.clone()
    usual.update()
    assert not torch.equal(before, usual.model.module.network.decoder.head.weight)


def test_other_heads_have_no_usual_way(alone) -> None:
    run = Run(name="x", data=DataSettings(h36m=""), model=ModelSettings(head="regression"))
    with pytest.raises(InputError, match="reference must be false"):
        UsualTraining(run, CPU)


def test_frames_become_crops(tmp_path: Path) -> None:
    frame = np.full((200, 200, 3), 128, np.uint8)
    frame[60:80, 40:60] = (0, 0, 255)  # BGR: red
    cv2.imwrite(str(tmp_path / "frame.png"), frame)
    matrix = np.array([[[1.0, 0, -30], [0, 1.0, -50]]])
    data = UsualFrames([tmp_path / "frame.png"], matrix, np.zeros((1, 17, 3)), 64, 96, color=0.0)
    picture, target, weight = data[0]
    assert picture.shape == (3, 96, 64)
    assert picture.dtype == target.dtype == np.float32
    assert weight.min() == 1
    plain = (np.array([255, 0, 0]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(picture[:, 20, 20], plain, atol=1e-4)
    grey = (128 / 255 - 0.485) / 0.229
    assert picture[0, 5, 5] == pytest.approx(grey, abs=1e-4)


def test_made_up_frames_make_batches(tmp_path: Path) -> None:
    loader = usual_batches(tmp_path, RUN, workers=1)
    batches = iter(loader)
    for _ in range(20):  # more than there are frames
        images, targets, weights = next(batches)
    assert images.shape == (4, 3, 96, 64)
    assert targets.shape == weights.shape == (4, 17, 3)
    assert len(loader) == 10**5
