"""Geometry closes from every raw layout: shard, crop, augmentation, targets, and all the way back to the annotation.

Runs over every layout, lens, box and aspect that can be met; the others are refused in one line.
"""

import itertools

import numpy as np
import pytest

from poselib.camera import apply_affine, back_project, project
from poselib.errors import InputError
from poselib.metrics import mpjpe_mm, root_relative
from poselib.settings import ModelSettings
from poselib.skeleton import H36M_FROM_MPII, mirror_permutation
from poselib.volume import decode
from shards.augment import plan
from shards.build import build
from shards.loader_settings import AugmentSettings, CropSettings
from shards.order import Draws
from shards.readers import READERS, find_reader
from shards.sample import unpack
from shards.settings import BuildSettings

pytestmark = pytest.mark.unit

LIMIT_MM = 0.05
LENSES = ("pinhole", "brown", "undistorted")
BOXES = ("root2000", "tight")
DISTORTED = ("h36m", "h36m_kf")
PINHOLE = ("h36m_mks0601", "h36m_eth")
CASES = [*itertools.product(DISTORTED, LENSES, BOXES), *itertools.product(PINHOLE, ("pinhole",), BOXES)]


def settings_for(raw, out, **changes) -> BuildSettings:
    return BuildSettings(raw=raw, out=out, workers=1, stored_px=64, every=2, every_test=0, cover_height=1.34, **changes)


def test_every_layout_and_lens_is_either_run_or_refused():
    people = {name for name, reader in READERS.items() if reader.source == "h36m"}
    assert people == {*DISTORTED, *PINHOLE}


@pytest.mark.parametrize("layout", PINHOLE)
@pytest.mark.parametrize("lens", LENSES[1:])
def test_a_lens_that_cannot_be_met_leaves_no_folder_behind(layouts, tmp_path, layout, lens):
    with pytest.raises(InputError, match=f"lens: .* stores no distortion, which {lens} needs; take pinhole"):
        build(settings_for(layouts[layout], tmp_path / "out", lens=lens))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("layout", "lens", "box"), CASES)
def test_annotations_come_back_from_every_layout(layouts, truth, tmp_path, layout, lens, box):
    shards = build(settings_for(layouts[layout], tmp_path / "out", lens=lens, box=box))
    frames = {frame.key: frame for frame in truth.frames}
    samples = [shards.read(row) for row in range(len(shards))]
    assert len(samples) == len(frames) // 2
    true = np.stack([truth.in_camera(frames[sample.key]) for sample in samples])
    for sample, expected in zip(samples, true, strict=True):
        check_raw_annotation(sample, expected, truth.camera(frames[sample.key]), lens)
    _, vectors = shards.read_bytes(range(len(shards)))
    arrays = unpack(vectors)
    indices = np.arange(len(samples))
    draws = Draws(np.zeros_like(indices), np.zeros_like(indices), indices)
    for aspect, (width, height), flip in itertools.product(("keep", "stretch"), ((256, 256), (288, 384)), (0.0, 1.0)):
        model = ModelSettings(crop_width=width, crop_height=height)
        crop = CropSettings(aspect=aspect)
        augment = AugmentSettings(flip, zoom=0.2, rotation_deg=25.0, rotation=1.0)
        planned = plan(vectors, draws, [augment], crop, model, seed=1)
        found = decode(
            planned.targets,
            planned.stored_from_crop,
            arrays["joints_mm"][:, 0, 2],
            arrays["intrinsics"],
            arrays["distortion"] if lens == "brown" else None,
            model,
            zoom=planned.zoom,
        )
        expected = true[:, mirror_permutation()] if flip else true
        case = (layout, lens, box, aspect, width, height, flip)
        assert mpjpe_mm(root_relative(found), root_relative(expected)) < LIMIT_MM, case
        assert np.abs(found - expected).max() < 4 * LIMIT_MM, case


def check_raw_annotation(sample, true_mm, camera, lens: str) -> None:
    """Within 0.1 mm, and 0.5 px under the same lens setting."""
    arrays = {name: value.astype(float) for name, value in sample.arrays.items()}
    np.testing.assert_allclose(arrays["joints_mm"], true_mm, atol=0.1)
    in_frame = apply_affine(arrays["frame_from_stored"], arrays["joints_px"])
    distortion = camera.distortion if lens == "brown" else None
    np.testing.assert_allclose(in_frame, project(true_mm, camera.intrinsics, distortion), atol=0.5)
    own_lens = arrays["distortion"] if lens == "brown" else None
    back = back_project(arrays["joints_px"], arrays["joints_mm"][:, 2], arrays["intrinsics"], own_lens)
    np.testing.assert_allclose(back, true_mm, atol=0.1)


@pytest.mark.parametrize("layout", ["mpii", "mpii_hrnet"])
@pytest.mark.parametrize("box", BOXES)
def test_pictures_without_a_camera_close_in_the_picture(layouts, tmp_path, layout, box):
    settings = settings_for(layouts[layout], tmp_path / "out", box=box)
    shards = build(settings)
    _, reader = find_reader(settings)
    people = {p.key: p for part in reader.parts(settings) for p in reader.read(settings, part)}
    annotated = {
        (f"images/{picture.name}", person.index): person.joints
        for part in reader.parts(settings)
        for picture in part.content
        for person in picture.people
    }
    origin = np.array(H36M_FROM_MPII["eth"])
    _, vectors = shards.read_bytes(range(len(shards)))
    indices = np.arange(len(shards))
    draws = Draws(np.zeros_like(indices), np.zeros_like(indices), indices)
    for aspect, (width, height) in itertools.product(("keep", "stretch"), ((256, 256), (288, 384))):
        model = ModelSettings(crop_width=width, crop_height=height)
        planned = plan(vectors, draws, [AugmentSettings(0.0)], CropSettings(aspect=aspect), model, seed=1)
        in_crop = (planned.targets[..., :2] + 0.5) * (width, height)
        for row in range(len(shards)):
            sample = shards.read(row)
            raw = annotated[sample.names.picture, int(sample.key[-2:])][origin]
            known = (origin >= 0) & (raw[:, 2] > 0)
            stored = apply_affine(planned.stored_from_crop[row].astype(float), in_crop[row].astype(float))
            in_frame = apply_affine(sample.arrays["frame_from_stored"].astype(float), stored)
            np.testing.assert_allclose(in_frame[known], raw[known, :2], atol=0.5)
            np.testing.assert_array_equal(sample.arrays["supervised_px"], people[sample.key].supervised_px)
