"""What a network may start from, as far as names tell. No torch here."""

import re
from pathlib import PurePosixPath
from typing import Final, Literal
from urllib.parse import urlsplit

from poselib.settings import Backbone, ModelSettings

NetworkPart = Literal["backbone", "pyramid", "upsampling", "head"]
IMAGENET: Final[dict[Backbone, str]] = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "botnet50": "resnet50-0676ba61.pth",
}
"""torchvision's files of ImageNet weights (V1), of width 64; each name ends in the first digits of its SHA-256.
BoTNet-50 takes ResNet-50's but for its attention."""


def check_weights(wanted: str, sha256: str, model: ModelSettings) -> None:
    """Whether the backbone can start as `weights` says, as far as names tell; a ValueError names the setting if not."""
    if wanted == "imagenet" and (model.backbone not in IMAGENET or model.width != 64):
        raise ValueError(
            f"weights must be none, a file or a URL for model.backbone {model.backbone} of model.width"
            f" {model.width}: ImageNet weights exist for {', '.join(IMAGENET)} of width 64"
        )
    is_url = "://" in wanted
    if not wanted or (is_url and not wanted.startswith(("https://", "http://"))):
        raise ValueError(f"weights must be none, imagenet, a file or a http(s) URL, not {wanted!r}")
    if is_url and not PurePosixPath(name_in_url(wanted)).suffix:
        raise ValueError(f"weights must be a URL that ends in a file's name, as resnet50-0676ba61.pth, not {wanted!r}")
    if sha256 and not re.fullmatch("[0-9a-fA-F]{8,64}", sha256):
        raise ValueError(f"weights_sha256 must be 8 to 64 hexadecimal digits, not {sha256!r}")
    if sha256 and wanted in ("none", "imagenet"):
        raise ValueError(f"weights_sha256 must stay empty for weights {wanted}: it belongs to a file or URL")
    if is_url and not (sha256 or sha256_in_name(name_in_url(wanted))):
        raise ValueError(
            "weights_sha256 must be given for a URL whose file's name does not end in its first digits, as"
            " resnet50-0676ba61.pth does"
        )


def name_in_url(url: str) -> str:
    """The name of the file that a URL points at; without `?` and what follows."""
    return PurePosixPath(urlsplit(url).path).name


def sha256_in_name(name: str) -> str:
    """The digits of its SHA-256 that torchvision's file names end in, or nothing."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    return found[1] if found else ""
