"""THE USUAL WAY, for comparison only: nothing of a training run uses this file.

It is how integral pose regression is usually written: a torch DataLoader whose workers decode full frames with OpenCV
and augment and normalise in NumPy; an fp32 network in torch's own memory order; softmax and three marginal sums under
autograd; torch's Adam and DistributedDataParallel. The layers are the same as ours, so both see the same loss.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from cluster.settings import Run
from poselib.errors import InputError
from poselib.model.integral import cell_positions
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings

FRAME_PX = 1000
_FRAMES = 64
_MEAN, _STD = (np.array(each, np.float32) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


class UsualNetwork(nn.Module):
    """The same layers, and the naive soft-argmax behind them."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = PoseNetwork(settings)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b j 3"]:
        """u, v, z of every joint, volume units."""
        return naive_soft_argmax(self.network.heatmap_logits(images), self.settings)


def naive_soft_argmax(logits: Float[Tensor, "b jd h w"], settings: ModelSettings) -> Float[Tensor, "b j 3"]:
    """Softmax over all cells, then the mean of each marginal, everything kept for the backward pass."""
    volume = logits.unflatten(1, (-1, settings.depth))
    p = volume.flatten(2).softmax(dim=2).view(volume.shape)
    marginals = (p.sum(dim=(2, 3)), p.sum(dim=(2, 4)), p.sum(dim=(3, 4)))
    axes = (cell_positions(m.shape[2], settings.cell_origin, m.dtype, m.device) for m in marginals)
    return torch.stack([(m * axis).sum(dim=2) for m, axis in zip(marginals, axes, strict=True)], dim=2)


class UsualTraining:
    """A training step of the usual way.

    Args:
        run: network, batch and optimiser; its engine's levers are left aside.
        device: to train on.

    Raises:
        InputError: the run is not of the integral head with the plain loss.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        if run.model.head != "integral" or run.loss.heatmap or not run.loss.l1:
            raise InputError("reference must be false for this run: the usual way has the integral head and L1 loss")
        self.run, self.device = run, device
        network = UsualNetwork(run.model).to(device)
        ids = [device.index or 0] if device.type == "cuda" else None
        self.model = DistributedDataParallel(network, device_ids=ids)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=run.optimizer.lr, betas=run.optimizer.betas)

    def loss(self, images: Tensor, targets: Tensor, weights: Tensor) -> Float[Tensor, ""]:
        """One forward pass: pictures `b 3 h w`, normalised; targets and weights `b j 3`."""
        predicted = self.model(images)
        return self.run.loss.l1 * ((predicted - targets).abs() * weights).sum() / len(images)

    def update(self) -> None:
        """Adam, and gradients away."""
        self.optimizer.step()
        self.optimizer.zero_grad()


class UsualFrames(Dataset):
    """Pictures to float32 crops `3 h w`, targets and weights `j 3`; the pictures again and again.

    Args:
        pictures: JPEG files, or their bytes (uint8 `n`).
        picture_to_crop: `n 2 3`, px.
        targets: `n j 3`, volume units; no flip touches them, as only the work counts.
        width: of the crops, px.
        height: of the crops, px.
        color: each channel is multiplied by a draw from 1 - color to 1 + color.
        flip: probability of mirroring.
        length: samples of an epoch; 0 for as many as pictures.
    """

    def __init__(
        self,
        pictures: Sequence[Path] | Sequence[np.ndarray],
        picture_to_crop: np.ndarray,
        targets: np.ndarray,
        width: int,
        height: int,
        color: float = 0.2,
        flip: float = 0.0,
        length: int = 0,
    ) -> None:
        self.pictures, self.matrices, self.targets = pictures, picture_to_crop, targets.astype(np.float32)
        self.size, self.color, self.flip = (width, height), color, flip
        self.length = length or len(pictures)
        self.generator = np.random.default_rng(0)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Decode, warp, mirror, recolour, normalise."""
        index %= len(self.pictures)
        picture = self.pictures[index]
        encoded = np.fromfile(picture, np.uint8) if isinstance(picture, Path) else picture
        bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        assert bgr is not None
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        crop = cv2.warpAffine(rgb, self.matrices[index], self.size, flags=cv2.INTER_LINEAR)
        if self.generator.random() < self.flip:
            crop = crop[:, ::-1]
        gains = self.generator.uniform(1 - self.color, 1 + self.color, 3).astype(np.float32)
        normalised = (np.clip(crop.astype(np.float32) * gains, 0, 255) / 255 - _MEAN) / _STD
        target = self.targets[index]
        return np.ascontiguousarray(normalised.transpose(2, 0, 1)), target, np.ones_like(target)


def usual_loader(data: UsualFrames, batch: int, workers: int, pin_memory: bool = False) -> DataLoader:
    """A DataLoader as a careful user sets it up: OpenCV leaves the cores to the workers."""
    return DataLoader(
        data,
        batch,
        num_workers=workers,
        drop_last=True,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread if workers else None,
    )


def usual_batches(folder: Path, run: Run, workers: int, pin_memory: bool = False) -> DataLoader:
    """One endless for a bench over made-up frames of 1000 px, which it writes into `folder` first."""
    generator = np.random.default_rng(0)
    frames = [folder / f"{index:03}.jpg" for index in range(_FRAMES)]
    for path in frames:
        coarse = generator.integers(0, 256, (60, 60, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noisy = np.clip(smooth + generator.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(path), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])
    width, height = run.model.crop_width, run.model.crop_height
    scale = width / (0.45 * FRAME_PX)
    matrices = np.zeros((_FRAMES, 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = scale
    matrices[:, :, 2] = -scale * generator.uniform(0, 0.4 * FRAME_PX, (_FRAMES, 2))
    targets = generator.uniform(-0.5, 0.5, (_FRAMES, 17, 3))
    data = UsualFrames(frames, matrices, targets, width, height, flip=0.5, length=run.batch.micro * 10**5)
    return usual_loader(data, run.batch.micro, workers, pin_memory)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
