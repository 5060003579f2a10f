"""Where people are, by a detector that need not be installed: torchvision's Faster R-CNN on MobileNet V3."""

from pathlib import Path
from typing import Final

import numpy as np
import torch

from cluster.predict.boxes import Boxes, Detector
from cluster.pretrained import read_weights
from poselib.errors import InputError

_LEAST_SCORE: Final = 0.5
_PERSON: Final = 1
"""COCO's first class."""


def torchvision_detector(weights: Path, device: torch.device) -> Detector:
    """Boxes of people in a picture, uint8 `h w 3` RGB: `n 4`, x y w h in px.

    Args:
        weights: torchvision's `fasterrcnn_mobilenet_v3_large_fpn`, trained on COCO; nothing in the file is executed.
        device: where it looks.

    Raises:
        InputError: torchvision is not installed, or the file is missing, damaged or of another network.
    """
    try:
        from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn as build
    except (ImportError, RuntimeError) as error:  # of another torch build it is there, and fails as it is imported
        raise InputError(
            "detector torchvision is not installed for this torch; install the torchvision that belongs to it, or give"
            " --box or --boxes"
        ) from error
    network = build(weights=None, weights_backbone=None)
    try:
        network.load_state_dict(read_weights(weights))
    except RuntimeError as error:
        raise InputError(
            f"{weights} holds other weights than detector torchvision's fasterrcnn_mobilenet_v3_large_fpn"
        ) from error
    network.to(device).eval()

    @torch.inference_mode()
    def detect(picture: np.ndarray) -> Boxes:
        (found,) = network([torch.from_numpy(picture).to(device).permute(2, 0, 1).float() / 255])
        person = (found["labels"] == _PERSON) & (found["scores"] >= _LEAST_SCORE)
        corners = found["boxes"][person].cpu().numpy().astype(np.float64)
        return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)

    return detect
