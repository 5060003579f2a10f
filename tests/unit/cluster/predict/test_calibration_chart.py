"""The chart of a calibration shows its points."""

import numpy as np
import pytest

from cluster.calibration_chart import calibration_chart
from poselib.calibration import calibrate

pytestmark = pytest.mark.unit


def test_points_off_the_diagonal_are_drawn_off_it():
    spread = np.linspace(10, 100, 1000)
    right, twice = (calibration_chart(calibrate(spread, factor * spread), "studio", 400) for factor in (1.0, 2.0))
    assert right.shape == twice.shape == (400, 400, 3)
    blue = [np.argwhere((chart == (0, 114, 178)).all(axis=-1)).mean(axis=0) for chart in (right, twice)]
    # Centre of the points: on the diagonal column and row add up, above it the row is smaller.
    assert blue[1][0] + blue[1][1] < blue[0][0] + blue[0][1] - 10
