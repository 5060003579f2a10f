"""What a served model reads of a request, and refuses in one line."""

import math

import numpy as np
import pytest

from cluster.serving import read_box, read_options
from poselib.errors import InputError

pytestmark = pytest.mark.unit


def test_a_row_may_name_a_box():
    np.testing.assert_array_equal(read_box([1, 2, 30, 40], 0), [[1, 2, 30, 40]])
    assert read_box(None, 0) is None
    assert read_box(math.nan, 0) is None  # what a table without a box holds


@pytest.mark.parametrize("box", [[1, 2, 3], "1 2 3 4", {"x": 1}, [1, 2, 3, 10**400]])
def test_what_is_no_box_is_one_line(box):
    with pytest.raises(InputError, match=r"^row 3: box must be \[x, y, width, height\] in px$"):
        read_box(box, 3)


@pytest.mark.parametrize("options", [{"focal_px": 10**400}, {"box_scale": 9}, {"box_scale": [1]}, {"fov_deg": "wide"}])
def test_options_out_of_range_are_one_line(options):
    with pytest.raises(InputError, match=r"^params: "):
        read_options(options)
