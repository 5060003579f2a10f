import hashlib
import json
import shutil
import zlib

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

from poselib.camera import apply_affine
from poselib.errors import InputError
from poselib.skeleton import H36M_FROM_MPII
from shards.build import build
from shards.occluders import load_occluders
from shards.readers import mpii as reader
from shards.readers import voc as voc_reader
from shards.readers.pictures import load_picture
from shards.records import Skipped
from shards.settings import BuildSettings
from shards.verify import verify

pytestmark = pytest.mark.unit


def settings_for(raw, out, **changes) -> BuildSettings:
    return BuildSettings(raw=raw, out=out, **({"workers": 1, "stored_px": 64} | changes))


def read_all(settings) -> list:
    return [item for part in reader.parts(settings) for item in reader.read(settings, part)]


@pytest.mark.parametrize("mapping", ["eth", "sun", "limbs"])
def test_mpii_joints_box_and_head_lead_back_to_the_annotation(mpii, tmp_path, mapping):
    raw, truth = mpii
    shards = build(settings_for(raw, tmp_path / "out", mpii_map=mapping, cover_width=1.5))
    assert shards.manifest.samples == 8  # nine pictures, of which one is a test picture
    origin = np.array(H36M_FROM_MPII[mapping])
    for row in range(8):
        sample = shards.read(row)
        arrays, to_frame = sample.arrays, sample.arrays["frame_from_stored"]
        np.testing.assert_array_equal(arrays["supervised_px"], origin >= 0)
        assert not arrays["supervised_mm"].any()
        assert not arrays["intrinsics"].any()
        in_frame = apply_affine(to_frame, arrays["joints_px"])
        expected = truth[sample.names.picture.removeprefix("images/")] - 0.5
        np.testing.assert_allclose(in_frame[origin >= 0], expected[origin[origin >= 0]], atol=0.01)
        corner = apply_affine(to_frame, arrays["box"][None, :2])[0]
        side = 0.3 * 200 * 1.25
        np.testing.assert_allclose(corner, [59.5 - side / 2, 49.5 + 15 * 0.3 - side / 2], atol=0.01)
        np.testing.assert_allclose(arrays["box"][2:] * to_frame[[0, 1], [0, 1]], side, atol=0.01)
        np.testing.assert_allclose(arrays["head_size"] * to_frame[0, 0], 0.6 * np.hypot(12, 16), rtol=0.02)
    assert sum(shards.manifest.counts["parts"].values()) == 8


def test_mpii_pictures_are_parted_by_a_stable_hash_or_by_the_list_file(mpii, tmp_path):
    raw, truth = mpii
    by_hash = {p.names.picture: p.names.part for p in read_all(settings_for(raw, tmp_path))}
    for name in sorted(truth)[:-1]:
        is_val = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 10 == 0
        assert by_hash[f"images/{name}"] == ("val" if is_val else "train")
    listed = shutil.copytree(raw, tmp_path / "raw")
    (listed / "annot").mkdir()
    (listed / "annot" / "valid.json").write_text(json.dumps([{"image": "000000003.jpg"}]))
    shards = build(settings_for(listed, tmp_path / "out"))
    assert shards.manifest.counts["parts"] == {"train": 7, "val": 1}
    assert "valid.json" in shards.manifest.split
    assert shards.read(shards.select(parts=("val",))[0]).names.picture == "images/000000003.jpg"


def test_a_single_picture_with_a_single_joint_survives_scipys_squeezing(tmp_path, mpii):
    (tmp_path / "images").mkdir()
    shutil.copy(mpii[0] / "images" / "000000000.jpg", tmp_path / "images" / "a.jpg")
    point = {"x": 50.0, "y": 40.0, "id": 9, "is_visible": np.zeros((0, 0))}
    rect = {"scale": 0.3, "objpos": {"x": 60.0, "y": 50.0}, "annopoints": {"point": point}}
    release = {"annolist": {"image": {"name": "a.jpg"}, "annorect": rect}, "img_train": 1}
    scipy.io.savemat(tmp_path / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})
    (person,) = read_all(settings_for(tmp_path, tmp_path))
    assert person.supervised_px.tolist() == [0.0] * 10 + [1.0] + [0.0] * 6
    np.testing.assert_allclose(person.joints_px[10], [49.5, 39.5])
    assert person.head_size == 0.0


def test_mpii_damage_is_named_and_the_rest_is_kept(mpii, tmp_path):
    raw = shutil.copytree(mpii[0], tmp_path / "raw")
    torn = raw / "images" / "000000001.jpg"
    torn.write_bytes(torn.read_bytes()[:2000])
    (raw / "images" / "000000004.jpg").unlink()
    path = raw / "mpii_human_pose_v1_u12_1.mat"
    release = scipy.io.loadmat(path, struct_as_record=False)["RELEASE"]
    entries = release[0, 0].annolist[0]
    entries[5].annorect[0, 0].scale = np.zeros((0, 0))
    for point in entries[6].annorect[0, 0].annopoints[0, 0].point[0]:
        point.x = point.x + 500
    scipy.io.savemat(path, {"RELEASE": release})
    items = read_all(settings_for(raw, tmp_path))
    skipped = {item.file: item.reason for item in items if isinstance(item, Skipped)}
    assert len(items) - len(skipped) == 4
    assert sorted(skipped) == [f"images/00000000{n}.jpg" for n in (1, 4, 5, 6)]
    assert "truncated" in skipped["images/000000001.jpg"]
    assert "No such file" in skipped["images/000000004.jpg"]
    assert skipped["images/000000005.jpg"] == "person 0 has joints but no scale or objpos"
    assert skipped["images/000000006.jpg"].endswith("joints lie outside the 120x90 picture")


def test_a_mat_file_of_something_else_is_one_clear_line(tmp_path):
    (tmp_path / "images").mkdir()
    path = tmp_path / "mpii_human_pose_v1_u12_1.mat"
    scipy.io.savemat(path, {"OTHER": 1})
    with pytest.raises(InputError, match=r"must hold RELEASE\.annolist"):
        reader.parts(settings_for(tmp_path, tmp_path))
    path.write_bytes(b"no mat file at all")
    with pytest.raises(InputError, match="cannot be read"):
        reader.parts(settings_for(tmp_path, tmp_path))


def test_voc_objects_follow_the_published_recipe(voc, tmp_path):
    bank = build(settings_for(voc, tmp_path / "bank"))
    assert bank.manifest.kind == "occluders"
    (occluder,) = load_occluders(tmp_path / "bank")  # person, difficult, truncated and small ones are dropped
    assert occluder.shape == (15, 15, 4)
    np.testing.assert_allclose(occluder[..., :3], 90, atol=2)
    assert occluder[7, 7, 3] == 255
    assert occluder[0, 0, 3] == 0
    assert (occluder[..., 3] == 192).any()


def test_eroding_takes_an_ellipse_of_eight_pixels():
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True
    cut = voc_reader.cut_out(np.zeros((60, 60, 3), np.uint8), mask, (0, 0, 60, 60))
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (8, 8))
    core = cv2.erode(mask.astype(np.uint8), ellipse)
    alpha = np.where(core, 255, np.where(mask, 192, 0)).astype(np.uint8)
    expected = alpha.reshape(30, 2, 30, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(cut[..., 3], expected, atol=0.51)


def test_a_bank_is_not_opened_as_people_nor_people_as_a_bank(voc, mpii, tmp_path):
    from shards.manifest import ShardSet

    build(settings_for(voc, tmp_path / "bank"))
    with pytest.raises(InputError, match="holds occluders, not people"):
        ShardSet.open(tmp_path / "bank")
    build(settings_for(mpii[0], tmp_path / "people"))
    with pytest.raises(InputError, match="holds people, not occluders"):
        load_occluders(tmp_path / "people")
    with pytest.raises(InputError, match="no finished occluder bank"):
        load_occluders(tmp_path)


def test_what_is_no_picture_is_told_without_the_folder_it_lies_in(tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("not a picture")
    with pytest.raises(ValueError, match=r"^no picture, or its head is damaged$"):
        load_picture(path)


@pytest.mark.parametrize("side", [7000, 60000])
def test_a_small_file_that_claims_a_giant_picture_is_refused_before_it_is_decoded(tmp_path, side):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path := tmp_path / "bomb.png")
    content = bytearray(path.read_bytes())
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is none of this set|DecompressionBomb"):
        load_picture(path)


def test_a_voc_picture_with_a_dot_in_its_name_keeps_its_members_apart(voc, tmp_path):
    raw = shutil.copytree(voc, tmp_path / "raw")
    for path in list(raw.rglob("2007_000001.*")):
        path.rename(path.with_stem("2007.1"))
    settings = settings_for(raw, tmp_path)
    [occluder] = [item for part in voc_reader.parts(settings) for item in voc_reader.read(settings, part)]
    assert occluder.key == "voc_2007_1_00"


def test_names_that_tars_and_indexes_cannot_take_become_plain_or_are_skipped(raw_writers, tmp_path):
    raw = tmp_path / "raw"
    raw_writers.write_mpii(raw, 121)
    path = raw / "mpii_human_pose_v1_u12_1.mat"
    release = scipy.io.loadmat(path, struct_as_record=False)["RELEASE"]
    entries = release[0, 0].annolist[0]
    for number, name in ((3, "a picture \u00e9.1.jpg"), (5, "x" * 120 + ".jpg")):
        picture = entries[number].image[0, 0]
        (raw / "images" / str(picture.name[0])).rename(raw / "images" / name)
        picture.name = np.array([name])
    scipy.io.savemat(path, {"RELEASE": release})
    shards = build(settings_for(raw, tmp_path / "out"))
    assert "mpii_a_picture___1_00" in {shards.read(row).key for row in range(len(shards))}
    (skip,) = shards.manifest.skipped
    assert skip.file == f"images/{'x' * 120}.jpg"
    assert skip.reason == "its name is too long for a shard"
    verify(tmp_path / "out")
