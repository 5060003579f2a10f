"""A trained model at work on pictures: boxes, pictures, poses, outputs.

The Python API is `Predictor`, `open_photo` and `CameraSettings`, imported from here. They are loaded when first asked
for: the settings of `pose predict` lie in this package too, and need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cluster.predict.pictures import open_photo
    from cluster.predict.poses import Predictor
    from cluster.predict.settings import CameraSettings

__all__ = ["CameraSettings", "Predictor", "open_photo"]

_PLACES: Final = {"CameraSettings": "settings", "Predictor": "poses", "open_photo": "pictures"}


def __getattr__(name: str) -> Any:
    """What the API offers, from where it lies."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
