"""Geometry closes: a true pose through shard, crop, augmentation and targets, then all the way back, in millimetres.

This guards every score. It runs over every lens, box, z scaling, cell origin, aspect and mirroring.
"""

import itertools

import numpy as np
import pytest

from poselib.camera import project, root_box, tight_box
from poselib.metrics import mpjpe_mm, root_relative
from poselib.settings import ModelSettings
from poselib.skeleton import mirror_permutation
from poselib.volume import decode
from shards.augment import plan
from shards.crop import crop_person
from shards.loader_settings import AugmentSettings, CropSettings
from shards.order import Draws
from shards.sample import Names, decode_vector, encode_arrays, unpack
from shards.settings import BuildSettings
from shards.source import Person

pytestmark = pytest.mark.unit

LIMIT_MM = 0.05
INTRINSICS = np.array([1145.0, 1143.8, 512.5, 515.4])
DISTORTION = np.array([-0.207, 0.248, -0.003, -0.0009, -0.0014])


def people(lens: str, box: str, count: int = 4) -> list[Person]:
    """People somewhere in front of a Human3.6M-like camera."""
    rng = np.random.default_rng(1)
    found = []
    for number in range(count):
        root = np.array([rng.uniform(-1000, 1000), rng.uniform(-300, 300), rng.uniform(3500, 6500)])
        joints_mm = root + np.concatenate([np.zeros((1, 3)), rng.uniform(-700, 700, (16, 3))])
        distortion = DISTORTION if lens == "brown" else None
        joints_px = project(joints_mm, INTRINSICS, distortion)
        nominal = root_box(root, INTRINSICS, distortion) if box == "root2000" else tight_box(joints_px)
        found.append(
            Person(
                key=f"p{number}",
                names=Names("h36m", "picture"),
                picture=np.zeros((1002, 1000, 3), np.uint8),
                joints_px=joints_px,
                joints_mm=joints_mm,
                supervised_px=np.ones(17),
                supervised_mm=np.ones(17),
                box=nominal,
                intrinsics=INTRINSICS,
                distortion=DISTORTION,
            )
        )
    return found


@pytest.mark.parametrize("lens", ["pinhole", "brown", "undistorted"])
@pytest.mark.parametrize("box", ["root2000", "tight"])
def test_true_poses_come_back(lens, box, tmp_path):
    originals = people(lens, box)
    build = BuildSettings(raw=tmp_path, out=tmp_path, lens=lens, box=box, stored_px=300, cover_height=1.34)
    stored = [decode_vector(encode_arrays(crop_person(person, build).arrays)) for person in originals]
    vectors = np.stack(stored)
    true = np.stack([person.joints_mm for person in originals])
    indices = np.arange(len(originals))
    draws = Draws(np.zeros_like(indices), np.zeros_like(indices), indices)

    variants = itertools.product(
        ("keep", "stretch"), (True, False), ("center", "corner"), (0.0, 1.0), (0.0, 30.0), ((256, 256), (288, 384))
    )
    for aspect, z_scaled, cell_origin, flip, turn, (width, height) in variants:
        model = ModelSettings(crop_width=width, crop_height=height, cell_origin=cell_origin)
        crop = CropSettings(aspect=aspect, z_scaled_with_zoom=z_scaled)
        planned = plan(vectors, draws, [AugmentSettings(flip, zoom=turn / 100, rotation_deg=turn)], crop, model, seed=0)
        arrays = unpack(vectors)
        found = decode(
            planned.targets,
            planned.stored_from_crop,
            arrays["joints_mm"][:, 0, 2],
            arrays["intrinsics"],
            arrays["distortion"] if lens == "brown" else None,
            model,
            zoom=planned.zoom if z_scaled else 1.0,
        )
        expected = true[:, mirror_permutation()] if flip else true
        case = (lens, box, aspect, z_scaled, cell_origin, flip, turn, width, height)
        assert mpjpe_mm(root_relative(found), root_relative(expected)) < LIMIT_MM, case
        assert np.abs(found - expected).max() < 4 * LIMIT_MM, case
