"""What camera a picture is taken to be from."""

import math
from dataclasses import dataclass

import numpy as np

from cluster.predict.settings import CameraSettings


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole with its principal point in the picture's middle.

    Attributes:
        intrinsics: `4`, fx fy cx cy in px.
        origin: where the focal length comes from: `option`, `exif` or `default`.
    """

    intrinsics: np.ndarray
    origin: str


def camera_of(picture: np.ndarray, exif_focal_px: float, assumed: CameraSettings) -> Camera:
    """The camera of a picture: its focal length from the settings, else from EXIF, else the default angle of view."""
    height, width = picture.shape[:2]
    if assumed.focal_px:
        focal, origin = assumed.focal_px, "option"
    elif exif_focal_px:
        focal, origin = exif_focal_px, "exif"
    else:
        focal, origin = max(height, width) / 2 / math.tan(math.radians(assumed.fov_deg) / 2), "default"
    return Camera(np.array([focal, focal, width / 2, height / 2]), origin)
