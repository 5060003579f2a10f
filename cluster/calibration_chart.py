"""The picture of a calibration: predicted spread against true error."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from poselib.calibration import Calibration


def calibration_chart(calibration: Calibration, title: str = "", size_px: int = 480) -> np.ndarray:
    """A square chart, uint8 `h w 3` RGB: a point for each bin, on the diagonal where errors are as large as predicted.

    Args:
        calibration: what is drawn; its number stands in the chart.
        title: one line over it.
        size_px: side of the picture.
    """
    figure = Figure(figsize=(size_px / 100, size_px / 100), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    top = 1.08 * float(max(calibration.predicted_mm.max(), calibration.observed_mm.max(), 1.0))
    axes.plot([0, top], [0, top], color="0.6", linestyle="--", linewidth=1, label="errors as large as predicted")
    axes.plot(
        calibration.predicted_mm, calibration.observed_mm, "o-", color="#0072b2", label="bins of equally many joints"
    )
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="joint's own spread, mm", ylabel="root-relative error (rms), mm")
    axes.set_aspect("equal")
    axes.grid(color="0.92")
    said = (
        f"calibration error {calibration.error:.2f}, error / spread {calibration.ratio:.2f}, rank correlation"
        f" {calibration.rank_correlation:.2f}"
    )
    axes.set_title(f"{title}\n{said}" if title else said, fontsize=9)
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
