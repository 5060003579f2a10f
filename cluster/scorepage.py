"""The score card as one HTML file that needs nothing else: styles and pictures are inside."""

import base64
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from cluster.words import amount, plain, unit
from poselib.drawing import LEFT, RIGHT, TRUNK, contact_sheet, draw_skeleton, plot_pose_3d
from poselib.metrics import joint_errors_mm
from poselib.skeleton import H36M_JOINTS, ROOT
from shards.sample import Names

_JPEG_QUALITY: Final = 88
_SHOWN_PX: Final = 256
"""Height of the crops on the page, at least."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One sample to look at.

    Attributes:
        crop: uint8 `h w 3`, RGB, what the model saw.
        predicted_px: `17 2`, px of the crop.
        true_px: `17 2`, px of the crop.
        predicted_mm: `17 3`, root-relative, camera frame.
        true_mm: `17 3`, root-relative, camera frame.
        names: what the sample is called.
    """

    crop: np.ndarray
    predicted_px: np.ndarray
    true_px: np.ndarray
    predicted_mm: np.ndarray
    true_mm: np.ndarray
    names: Names

    @property
    def mpjpe_mm(self) -> float:
        """This sample's error."""
        return float(joint_errors_mm(self.predicted_mm[None], self.true_mm[None]).mean())

    def views(self) -> dict[str, np.ndarray]:
        """The sample's pictures, RGB, by what they show; small crops are enlarged, so that lines stay fine."""
        scale = max(1.0, _SHOWN_PX / self.crop.shape[0])
        crop = cv2.resize(self.crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        return {
            "input": crop,
            "predicted": draw_skeleton(crop, self.predicted_px * scale),
            "true": draw_skeleton(crop, self.true_px * scale),
            "in space": plot_pose_3d(self.predicted_mm, self.true_mm, size_px=crop.shape[0]),
        }


def render_page(
    run_name: str, score: dict[str, Any], figures: dict[str, str], pictures: list[Picture], calibration: bytes = b""
) -> str:
    """The page of a score: overall figures, bars per action and per joint, the calibration's chart (a PNG, where there
    is one), pictures, protocol card."""
    environment = Environment(loader=PackageLoader("cluster"), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    headline = score["protocol"].get("headline", "mpjpe_mm")
    return environment.get_template("scorecard.html").render(
        run_name=run_name,
        score=score,
        headline=_tile(headline, figures[headline], score),
        tiles=[_tile(key, label, score) for key, label in figures.items() if key != headline],
        charts=[
            ("Per action", _bars(score["per_action"], score["mean_pose_per_action"])),
            ("Per joint", _bars(score["per_joint"], score["mean_pose_per_joint"])),
        ],
        calibration=base64.b64encode(calibration).decode(),
        samples=[_sample(picture) for picture in pictures],
        colors={"right": _css(RIGHT), "left": _css(LEFT), "trunk": _css(TRUNK)},
        protocol={key: plain(value) for key, value in score["protocol"].items()},
    )


def picture_sheet(pictures: list[Picture]) -> bytes:
    """All pictures on one sheet, a row per sample, as JPEG."""
    views = [view for picture in pictures for view in picture.views().items()]
    return _jpeg(contact_sheet([image for _, image in views], 4, [title for title, _ in views]))


def _tile(key: str, label: str, score: dict[str, Any]) -> dict[str, str]:
    value, baseline = amount(key, score[key]), amount(key, score[f"mean_pose_{key}"])
    return {"label": label, "value": value, "unit": unit(key), "baseline": baseline}


def _bars(values: dict[str, float], baseline: dict[str, float]) -> list[dict[str, str]]:
    """One bar per entry, with lengths in percent of the longest that the chart shows."""
    longest = max(*values.values(), *baseline.values(), 1e-9)
    return [
        {
            "label": name.replace("_", " "),
            "value": f"{value:.1f}",
            "baseline": f"{baseline[name]:.1f}",
            "length": f"{100 * value / longest:.2f}",
            "mark": f"{100 * baseline[name] / longest:.2f}",
        }
        for name, value in values.items()
        if name != H36M_JOINTS[ROOT]  # 0 by definition
    ]


def _sample(picture: Picture) -> dict[str, Any]:
    names = picture.names
    parts = (names.source, names.subject, names.action, names.camera, f"frame {names.frame}" if names.frame else "")
    return {
        "title": " · ".join(part for part in parts if part),
        "picture": names.picture,
        "error": f"{picture.mpjpe_mm:.1f}",
        "views": [(title, base64.b64encode(_jpeg(image)).decode()) for title, image in picture.views().items()],
    }


def _jpeg(image: np.ndarray) -> bytes:
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done
    return data.tobytes()


def png(image: np.ndarray) -> bytes:
    """A picture, RGB, as PNG."""
    done, data = cv2.imencode(".png", image[..., ::-1])
    assert done
    return data.tobytes()


def _css(color: tuple[int, int, int]) -> str:
    return f"rgb({color[0]} {color[1]} {color[2]})"
