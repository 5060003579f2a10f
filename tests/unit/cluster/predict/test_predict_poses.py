"""Crops as training has them, geometry that closes, spreads in millimetres."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cluster.predict.camera import Camera, camera_of
from cluster.predict.crops import cut
from cluster.predict.poses import Answers, Predictor, Seen
from cluster.predict.settings import CameraSettings
from cluster.weights import SavedModel
from poselib.camera import apply_affine, invert_affine, project
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings
from poselib.volume import encode
from shards.augment import crop_matrices
from shards.crop import crop_person
from shards.loader_settings import CropSettings
from shards.sample import Names
from shards.settings import BuildSettings
from shards.source import Person

pytestmark = pytest.mark.unit

MODEL = ModelSettings("resnet10", 4, 96, 128, 8, 2000.0, (1, 2), 0, 8, 2)
INTRINSICS = np.array([900.0, 900.0, 400.0, 300.0])


def predictor(**options) -> Predictor:
    torch.manual_seed(0)
    network = PoseNetwork(MODEL).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return Predictor(SavedModel(network, 1, 1.0, np.zeros((17, 3))), torch.device("cpu"), **options)


def scene(height: int = 600, width: int = 800) -> np.ndarray:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (12, 16, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("aspect", ["keep", "stretch"])
@pytest.mark.parametrize("box", [(100, 50, 400, 400), (-80, 200, 500, 500), (300, 250, 60, 60)])
def test_crops_are_those_of_a_shard_set(box, aspect):
    picture, crop = scene(), CropSettings(aspect=aspect)
    zeros = np.zeros((17, 3))
    names = Names("h36m", "p")
    known = np.zeros(17)
    person = Person(
        "key", names, picture, zeros[:, :2], zeros, known, known, np.array(box, float), INTRINSICS, np.zeros(5)
    )
    build = BuildSettings(raw=Path(), out=Path(), stored_px=round(1.5 * MODEL.crop_width), quality=98, cover_height=1.4)
    sample = crop_person(person, build)
    stored = cv2.imdecode(np.frombuffer(sample.jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    matrix = crop_matrices(sample.arrays["box"][None].astype(float), crop, MODEL)[0]
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    want = cv2.warpAffine(stored, matrix, (MODEL.crop_width, MODEL.crop_height), flags=cv2.INTER_LINEAR)
    got = cut(picture, np.array([box], float), 1.0, crop, MODEL).pixels[0]
    assert np.abs(got.astype(int) - want).mean() < 1.5


@pytest.mark.parametrize("corner", [(-390.0, 50.0), (795.0, 50.0), (300.0, -399.0), (300.0, 599.0)])
def test_a_large_crop_that_shows_nothing_of_the_picture_is_black(corner):
    box = np.array([[*corner, 400.0, 400.0]])
    assert cut(scene(), box, 1.0, CropSettings(), MODEL).pixels.any()
    assert not cut(scene(), box, 0.5, CropSettings(), MODEL).pixels.any()


def person_mm(depth: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    joints = rng.normal(0, 250, (17, 3))
    joints[0] = 0
    return joints + np.array([150.0, -100.0, depth])


def test_true_answers_give_the_true_pose():
    joints_mm = person_mm(4200.0)
    joints_px = project(joints_mm, INTRINSICS)
    box = np.array([[380.0, 150.0, 250.0, 330.0]])
    made = predictor()
    crops = made.cut(scene(), box, 1.25)
    crop_from_frame = invert_affine(crops.frame_from_crop)
    ones = np.ones((1, 17))
    uvz, _ = encode(apply_affine(crop_from_frame, joints_px[None]), joints_mm[None], ones, ones, MODEL)
    ((pose,),) = made.poses(
        Answers(uvz, np.full((1, 17, 3), 0.01)),
        [Seen(box, crops, Camera(INTRINSICS, "option"))],
        CameraSettings(root_depth_mm=4200.0),
    )
    np.testing.assert_allclose(pose.camera_mm, joints_mm, atol=1e-6)
    np.testing.assert_allclose(pose.joints_mm, joints_mm - joints_mm[0], atol=1e-6)
    np.testing.assert_allclose(pose.joints_px, joints_px, atol=1e-6)
    assert pose.root_depth_from == "option"
    # The crop is 330 x 1.25 px wide, and higher by the model's aspect; 900 px stand for the pelvis' depth in mm.
    wide = 330 * 1.25 * 4200 / 900
    want = 0.01 * np.sqrt(wide**2 + (wide * 128 / 96) ** 2 + 2000**2)
    np.testing.assert_allclose(pose.spread_mm, want)
    assert ((pose.confidence > 0.99) & (pose.confidence <= 1)).all()


def test_pictures_go_in_and_people_come_out_whatever_the_batch():
    pictures = [scene(), scene(300, 200), scene(50, 90)]
    boxes = [np.array([[10.0, 10, 200, 300], [300, 100, 100, 90]]), np.empty((0, 4)), np.array([[5.0, 5, 40, 40]])]
    one, other = (predictor(batch=size).predict(pictures, boxes) for size in (1, 8))
    assert [len(people) for people in one] == [2, 0, 1]
    for few, many in zip(one, other, strict=True):
        for a, b in zip(few, many, strict=True):
            np.testing.assert_allclose(a.joints_px, b.joints_px, atol=1e-2)
            assert a.root_depth_from == "bone lengths"
            assert np.isfinite(a.camera_mm).all()
    assert [len(people) for people in predictor().predict(pictures)] == [1, 1, 1]


def test_people_of_many_pictures_are_those_of_each():
    pictures, cameras = [scene(), scene(300, 200), scene(50, 90)], (700.0, 900.0, 300.0)
    boxes = [np.array([[10.0, 10, 200, 300], [300, 100, 100, 90]]), np.empty((0, 4)), np.array([[5.0, 5, 40, 40]])]
    made = predictor()
    seen = [
        Seen(some, made.cut(picture, some, 1.0), camera_of(picture, focal, CameraSettings()))
        for picture, some, focal in zip(pictures, boxes, cameras, strict=True)
    ]
    answers = made.answer(np.concatenate([one.crops.pixels for one in seen]))
    together, start = made.poses(answers, seen, CameraSettings()), 0
    for one, people in zip(seen, together, strict=True):
        rows = slice(start, start + len(one.boxes))
        (alone,) = made.poses(Answers(answers.uvz[rows], answers.deviation[rows]), [one], CameraSettings())
        assert len(alone) == len(people) == len(one.boxes)
        for a, b in zip(alone, people, strict=True):
            for name in ("box", "joints_px", "joints_mm", "camera_mm", "root_depth_mm", "spread_mm", "confidence"):
                np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-12, atol=1e-9)
        start = rows.stop


PICTURE = np.zeros((40, 40, 3), np.uint8)


@pytest.mark.parametrize(
    ("pictures", "boxes", "said"),
    [
        ([PICTURE.astype(np.float32)], None, r"picture 0 must be uint8 h w 3, RGB, not float32 \(40, 40, 3\)"),
        ([PICTURE, PICTURE[..., 0]], [np.ones((1, 4))] * 2, "picture 1 must be uint8 h w 3"),
        ([PICTURE], [np.ones(4)], r"boxes of picture 0 must be n 4: x y w h in px, not \(4,\)"),
        ([PICTURE], [np.array([[1, 1, 0, 9.0]])], "with a width and height above 0"),
        ([PICTURE], [], "1 pictures need as many arrays of boxes, not 0"),
    ],
)
def test_what_is_no_picture_or_no_box_is_named(pictures, boxes, said):
    with pytest.raises(ValueError, match=said):
        predictor().predict(pictures, boxes)


def test_the_package_offers_the_api_and_loads_it_late():
    code = "import sys, cluster.predict.settings; assert 'torch' not in sys.modules; from cluster.predict import "
    code += "CameraSettings, Predictor, open_photo; print(Predictor.__module__, open_photo.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cluster.predict.poses", "cluster.predict.pictures"]
    with pytest.raises(ImportError):
        from cluster.predict import Nothing  # noqa: F401


def test_the_flip_test_averages_with_the_mirrored_picture():
    picture = scene(128, 96)
    both = np.stack([picture, picture[:, ::-1]])
    plain, flipped = predictor().answer(both), predictor(flip_test=True).answer(both)
    swap = [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]
    mirrored = plain.uvz[1, swap] * [-1, 1, 1]
    np.testing.assert_allclose(flipped.uvz[0], (plain.uvz[0] + mirrored) / 2, atol=1e-5)
    np.testing.assert_allclose(flipped.deviation[0], (plain.deviation[0] + plain.deviation[1, swap]) / 2, atol=1e-5)


def test_focal_lengths_come_from_the_option_then_exif_then_the_default():
    assert camera_of(scene(), 700.0, CameraSettings(focal_px=800.0)).intrinsics.tolist() == [800, 800, 400, 300]
    assert camera_of(scene(), 700.0, CameraSettings()).origin == "exif"
    found = camera_of(scene(), 0.0, CameraSettings(fov_deg=90.0))
    assert found.origin == "default"
    assert found.intrinsics[0] == pytest.approx(400)
