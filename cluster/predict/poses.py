"""A trained run that is given pictures and gives poses: the Python API behind `pose predict`.

predictor = Predictor.load("runs/demo")
(people,) = predictor.predict([picture], [boxes])
people[0].joints_px, people[0].joints_mm, people[0].camera_mm, people[0].spread_mm
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from cluster.engine.engine import choose_device
from cluster.predict.camera import Camera, camera_of
from cluster.predict.crops import Crops, cut
from cluster.predict.settings import Aspect, CameraSettings, Device, Weights
from cluster.predict.trained import find_model
from cluster.weights import SavedModel, load_model
from poselib.calibration import confidence, deviation_to_mm, joint_spread_mm
from poselib.camera import apply_affine
from poselib.metrics import root_relative
from poselib.model.spread import answer
from poselib.root_depth import depth_from_limbs
from poselib.volume import decode, to_crop_px
from shards.loader_settings import CropSettings
from shards.normalise import normalise


@dataclass(frozen=True, eq=False)
class Pose:
    """One person. Joints are Human3.6M's 17, `poselib.skeleton.H36M_JOINTS`.

    Attributes:
        box: `4`, x y w h in px of the picture, before it was enlarged to the crop.
        joints_px: `17 2` px of the picture.
        joints_mm: `17 3` mm, camera frame, from the pelvis.
        camera_mm: `17 3` mm, camera frame, from the camera: only as good as focal length and root depth are.
        root_depth_mm: depth of the pelvis that was taken.
        root_depth_from: `option`, or `bone lengths` where it is an estimate.
        spread_mm: `17`, root of the summed variances of each joint's heat map; NaN for a head without heat maps.
        confidence: `17`, the chance that the joint lies within 150 mm, were its spread that of a normal distribution.
    """

    box: np.ndarray
    joints_px: np.ndarray
    joints_mm: np.ndarray
    camera_mm: np.ndarray
    root_depth_mm: float
    root_depth_from: str
    spread_mm: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True, eq=False)
class Answers:
    """What the network says of crops: `n 17 3` each, u v z in volume units and their standard deviations."""

    uvz: Float[np.ndarray, "n 17 3"]
    deviation: Float[np.ndarray, "n 17 3"]


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network was shown of one picture: boxes `n 4`, their crops, and the camera that is assumed."""

    boxes: Float[np.ndarray, "n 4"]
    crops: Crops
    camera: Camera


class Predictor:
    """A network, and how the crops that it is shown are made.

    Args:
        saved: the trained model.
        device: that it lies on.
        crop: how crops of another aspect are cut; the rest of it is training's.
        bf16: autocast, as the run trained and was scored.
        flip_test: average with the mirrored crop's answer.
        batch: crops per forward pass.
        name: of the model's file, for outputs.
        box: what boxes it was trained on, where that is known: `root2000` or `tight`.
    """

    def __init__(
        self,
        saved: SavedModel,
        device: torch.device,
        *,
        crop: CropSettings | None = None,
        bf16: bool = False,
        flip_test: bool = False,
        batch: int = 32,
        name: str = "",
        box: str = "",
    ) -> None:
        self.saved, self.device, self.name, self.box = saved, device, name, box
        self.network, self.model = saved.network, saved.network.settings
        self.crop, self.bf16, self.flip_test, self.batch = crop or CropSettings(), bf16, flip_test, batch

    @classmethod
    def load(
        cls,
        run: Path | str,
        *,
        weights: Weights = "best",
        aspect: Aspect = "run",
        device: Device = "auto",
        flip_test: bool = False,
        batch: int = 32,
    ) -> "Predictor":
        """A run's folder, or its .safetensors file alone, which says neither aspect nor precision.

        Raises:
            InputError: it is no run, or its model is missing or damaged.
        """
        path, trained = find_model(Path(run), weights)
        chosen = choose_device(device)
        return cls(
            load_model(path, chosen),
            chosen,
            crop=trained.crop if aspect == "run" else replace(trained.crop, aspect=aspect),
            bf16=trained.bf16,
            flip_test=flip_test,
            batch=batch,
            name=str(path),
            box=trained.box,
        )

    def predict(
        self,
        pictures: Sequence[UInt8[np.ndarray, "h w 3"]],
        boxes: Sequence[Float[np.ndarray, "n 4"]] | None = None,
        camera: CameraSettings | None = None,
        *,
        box_scale: float = 1.25,
    ) -> list[list[Pose]]:
        """The people of some pictures.

        Args:
            pictures: uint8 `h w 3`, RGB, upright.
            boxes: `n 4` of each picture: x y w h in px; without them the whole picture is one person's box.
            camera: focal length, root depth and stature to assume.
            box_scale: how much larger than the boxes the crops are.

        Returns:
            A list of poses for each picture, in the order of its boxes.

        Raises:
            ValueError: a picture or its boxes are not of this type and shape.
        """
        camera = camera or CameraSettings()
        _check_pictures(pictures)
        if boxes is None:
            boxes = [np.array([[0.0, 0.0, picture.shape[1], picture.shape[0]]]) for picture in pictures]
            box_scale = 1.0
        _check_boxes(boxes, len(pictures))
        seen = [
            Seen(some, self.cut(picture, some, box_scale), camera_of(picture, 0.0, camera))
            for picture, some in zip(pictures, (np.asarray(some, np.float64) for some in boxes), strict=True)
        ]
        shown = [np.empty((0, *self._crop_shape), np.uint8), *(one.crops.pixels for one in seen)]
        return self.poses(self.answer(np.concatenate(shown)), seen, camera)

    def cut(self, picture: UInt8[np.ndarray, "h w 3"], boxes: Float[np.ndarray, "n 4"], scale: float) -> Crops:
        """The crops that the network is to be shown."""
        return cut(picture, boxes, scale, self.crop, self.model)

    def answer(self, pixels: UInt8[np.ndarray, "n h w 3"]) -> Answers:
        """What the network says of crops, in batches."""
        parts = [self._forward(pixels[start : start + self.batch]) for start in range(0, len(pixels), self.batch)]
        none = np.empty((0, 17, 3))
        return Answers(
            np.concatenate([none, *(uvz for uvz, _ in parts)]), np.concatenate([none, *(dev for _, dev in parts)])
        )

    @torch.inference_mode()
    def _forward(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = normalise(torch.from_numpy(pixels).to(self.device, non_blocking=True))
        uvz, deviation = answer(self.network, images, bf16=self.bf16, flip_test=self.flip_test)
        both = torch.stack([uvz.double(), deviation.double()]).cpu().numpy()
        return both[0], both[1]

    def poses(self, answers: Answers, seen: Sequence[Seen], assumed: CameraSettings) -> list[list[Pose]]:
        """The people of some pictures, in order, from what the network said of all their crops."""
        counts = [len(one.boxes) for one in seen]
        boxes = np.concatenate([np.empty((0, 4)), *(one.boxes for one in seen)])
        frame_from_crop = np.concatenate([np.empty((0, 2, 3)), *(one.crops.frame_from_crop for one in seen)])
        intrinsics = np.repeat(np.array([one.camera.intrinsics for one in seen]).reshape(-1, 4), counts, axis=0)
        joints_px = apply_affine(frame_from_crop, to_crop_px(answers.uvz, self.model))
        depth_mm = answers.uvz[..., 2] * self.model.depth_range_mm
        if assumed.root_depth_mm:
            roots, origin = np.full(len(boxes), assumed.root_depth_mm), "option"
        else:
            roots, origin = depth_from_limbs(joints_px, depth_mm, intrinsics, assumed.stature_mm), "bone lengths"
        camera_mm = decode(answers.uvz, frame_from_crop, roots, intrinsics, None, self.model)
        spread = joint_spread_mm(deviation_to_mm(answers.deviation, frame_from_crop, roots, intrinsics, self.model))
        columns = (boxes, joints_px, root_relative(camera_mm), camera_mm, roots, spread, confidence(spread))
        people = iter(
            [
                Pose(box, px, relative, absolute, float(root), origin, spreads, sure)
                for box, px, relative, absolute, root, spreads, sure in zip(*columns, strict=True)
            ]
        )
        return [list(islice(people, count)) for count in counts]

    @property
    def _crop_shape(self) -> tuple[int, int, int]:
        return self.model.crop_height, self.model.crop_width, 3

    @property
    def description(self) -> dict[str, Any]:
        """What outputs say of the model."""
        return {
            "file": self.name,
            "step": self.saved.step,
            "val_mpjpe_mm": None if math.isnan(self.saved.val_mpjpe_mm) else self.saved.val_mpjpe_mm,
            "crop_px": [self.model.crop_width, self.model.crop_height],
            "trained_box": self.box or None,
            "aspect": self.crop.aspect,
            "flip_test": self.flip_test,
        }


def _check_pictures(pictures: Sequence[np.ndarray]) -> None:
    for number, picture in enumerate(pictures):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"picture {number} must be uint8 h w 3, RGB, not {picture.dtype} {picture.shape}")


def _check_boxes(boxes: Sequence[np.ndarray], pictures: int) -> None:
    if len(boxes) != pictures:
        raise ValueError(f"{pictures} pictures need as many arrays of boxes, not {len(boxes)}")
    for number, some in enumerate(boxes):
        if np.ndim(some) != 2 or np.shape(some)[1] != 4:
            raise ValueError(f"boxes of picture {number} must be n 4: x y w h in px, not {np.shape(some)}")
        if not (np.isfinite(some).all() and (np.asarray(some)[:, 2:] > 0).all()):
            raise ValueError(f"boxes of picture {number} must be finite, with a width and height above 0")
