"""What a served model reads of a request, and refuses in one line."""

import base64
import math

import cv2
import numpy as np
import pytest
import torch

from cluster.predict.poses import Predictor
from cluster.predict.settings import CameraSettings
from cluster.serving import answer_request, read_box, read_options
from cluster.weights import SavedModel
from poselib.errors import InputError
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    network = PoseNetwork(ModelSettings("resnet10", 4, 96, 128, 8, 2000.0, (1, 2), 0, 8, 2)).eval()
    return Predictor(SavedModel(network, 1, 1.0, np.zeros((17, 3))), torch.device("cpu"))


def row(picture: np.ndarray, **more) -> dict:
    return {"picture": base64.b64encode(cv2.imencode(".png", picture[..., ::-1])[1]).decode()} | more


def test_rows_are_answered_in_their_order_as_the_api_answers(predictor):
    pictures = [np.random.default_rng(side).integers(0, 255, (side, 90, 3), np.uint8) for side in (60, 80)]
    box = [10, 5, 40, 50]
    whole, boxed = answer_request(predictor, [row(pictures[0]), row(pictures[1], box=box)], {"focal_px": 200})
    assumed = CameraSettings(focal_px=200)
    ((one,),) = predictor.predict(pictures[:1], camera=assumed)
    ((other,),) = predictor.predict(pictures[1:], [np.array([box], float)], assumed)
    for entry, pose, origin, height in ((whole, one, "whole picture", 60), (boxed, other, "request", 80)):
        assert (entry["box_from"], entry["height"], entry["focal_from"]) == (origin, height, "option")
        np.testing.assert_allclose(entry["joints_px"], pose.joints_px, atol=0.01)
        np.testing.assert_allclose(entry["camera_mm"], pose.camera_mm, atol=0.5)


def test_a_row_that_cannot_be_answered_is_named(predictor):
    picture = np.zeros((60, 90, 3), np.uint8)
    with pytest.raises(InputError, match=r"^row 1: box 0, 0, 1e"):
        answer_request(predictor, [row(picture), row(picture, box=[0, 0, 1e300, 50])], {})
    with pytest.raises(InputError, match=r"^row 0: box .*, at box_scale 0\.2, lies outside the picture of 90 x 60 px"):
        answer_request(predictor, [row(picture, box=[-39, 5, 40, 50])], {"box_scale": 0.2})


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
