import filecmp
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import av
import cdflib
import numpy as np
import pytest
import scipy.io
from PIL import Image

from poselib.camera import project, world_to_camera
from poselib.errors import InputError
from poselib.skeleton import H36M_FROM_RAW32
from shards.readers.h36m_metadata import read_metadata
from shards.settings import StudioSettings
from shards.studio.make import make_studio
from shards.studio.mpii import draw_still

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> StudioSettings:
    out = tmp_path_factory.mktemp("made") / "studio"
    names = {"subjects": ("S1", "S9"), "actions": ("SittingDown", "Walking")}
    return StudioSettings(
        out=out, seed=3, frames=3, frame_px=200, cameras=2, mpii_pictures=45, voc_pictures=4, workers=1, **names
    )


@pytest.fixture(scope="module")
def made(settings: StudioSettings) -> Path:
    make_studio(settings)
    return settings.out


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_number_of_workers_changes_no_byte(settings: StudioSettings, made: Path, tmp_path: Path) -> None:
    make_studio(replace(settings, out=tmp_path / "two", workers=2))
    names = files_of(made)
    assert names == files_of(tmp_path / "two")
    same, different, failed = filecmp.cmpfiles(made, tmp_path / "two", names, shallow=False)
    assert (different, failed) == ([], [])
    assert len(same) == len(names) > 60


def test_another_seed_makes_other_people(settings: StudioSettings, made: Path, tmp_path: Path) -> None:
    other = replace(settings, out=tmp_path / "other", seed=4, subjects=("S1",), actions=("Walking",), mpii_pictures=0)
    make_studio(replace(other, voc_pictures=0, cameras=1, frames=1))
    pose = "h36m/S1/MyPoseFeatures/D3_Positions/Walking 1.cdf"
    first, second = (np.asarray(cdflib.CDF(root / pose)["Pose"])[0, 0] for root in (made, tmp_path / "other"))
    assert np.abs(first - second).max() > 100
    assert not (tmp_path / "other" / "mpii").exists()


def test_human36m_files_have_the_official_shapes(made: Path) -> None:
    root = made / "h36m"
    metadata = read_metadata(root / "metadata.xml")
    videos = sorted(root.glob("S*/Videos/*.mp4"))
    assert len(videos) == 2 * 2 * 2
    for video in videos:
        stem, camera_name = video.stem.rsplit(".", 1)
        pose = np.asarray(cdflib.CDF(video.parents[1] / "MyPoseFeatures" / "D3_Positions" / f"{stem}.cdf")["Pose"])
        assert pose.shape == (1, 3, 96)
        assert pose.dtype == np.float32
        with av.open(str(video)) as container:
            assert container.streams.video[0].average_rate == 50
            shapes = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(video=0)]
        assert shapes == [(202 if camera_name == "54138969" else 200, 200, 3)] * 3
        camera = metadata.cameras[video.parents[1].name, camera_name]
        joints = pose.reshape(3, 32, 3)[:, H36M_FROM_RAW32]
        seen = world_to_camera(joints, camera.rotation, camera.position_mm)
        px = project(seen, camera.intrinsics, camera.distortion)
        assert (px > 0).all()
        assert (px < shapes[0][1::-1]).all()
        assert (seen[..., 2] > 3500).all()
        assert (seen[..., 2] < 8000).all()


def test_metadata_has_every_number_and_name(made: Path) -> None:
    root = ET.parse(made / "h36m" / "metadata.xml").getroot()
    text = (made / "h36m" / "metadata.xml").read_text()
    assert "ynthetic" in text
    numbers = np.array(text.split("<w0>[")[1].split("]</w0>")[0].split(), float)
    assert numbers.shape == (264 + 36,)
    assert (numbers[264:].reshape(4, 9)[:, 4] < -0.15).all()
    rows = [[cell.text for cell in row] for row in root.find("mapping")]
    assert len(rows) == 1 + 32
    assert {len(row) for row in rows} == {13}
    assert ["10", "2"] in [row[:2] for row in rows]


def test_mpii_joints_are_one_based_and_some_are_missing(settings: StudioSettings, made: Path) -> None:
    file = made / "mpii" / "mpii_human_pose_v1_u12_1.mat"
    release = scipy.io.loadmat(str(file), squeeze_me=True, struct_as_record=False)["RELEASE"]
    assert len(release.annolist) == 45
    full = 0
    for number, entry in enumerate(release.annolist):
        assert (made / "mpii" / "images" / entry.image.name).is_file()
        points = getattr(getattr(entry.annorect, "annopoints", None), "point", None)
        if points is None:
            continue
        truth = draw_still(settings, number).joints_px
        for point in np.atleast_1d(points):
            np.testing.assert_allclose([point.x, point.y], truth[point.id] + 0.5, atol=1e-6)
        full += len(np.atleast_1d(points)) == 16
    assert 20 < full < 45
    assert 0 < np.count_nonzero(release.img_train == 0) < 20


def test_voc_masks_boxes_and_objects_agree(made: Path) -> None:
    for xml in sorted((made / "voc" / "Annotations").glob("*.xml")):
        with (
            Image.open(made / "voc" / "SegmentationObject" / f"{xml.stem}.png") as mask,
            Image.open(made / "voc" / "JPEGImages" / f"{xml.stem}.jpg") as picture,
        ):
            assert mask.mode == "P"
            assert mask.size == picture.size
            numbers = np.asarray(mask)
        objects = ET.parse(xml).getroot().findall("object")
        assert len(objects) >= 2
        assert set(np.unique(numbers)) <= {0, 255, *range(1, len(objects) + 1)}
        assert 255 in numbers
        for number, element in enumerate(objects, start=1):
            low_x, low_y, high_x, high_y = (
                int(element.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")
            )
            rows, columns = np.nonzero(numbers == number)
            assert (rows + 1 >= low_y).all()
            assert (rows + 1 <= high_y).all()
            assert (columns + 1 >= low_x).all()
            assert (columns + 1 <= high_x).all()


def test_a_finished_folder_is_left_alone_and_says_what_it_is(settings: StudioSettings, made: Path) -> None:
    before = {name: (made / name).stat().st_mtime_ns for name in files_of(made)}
    make_studio(settings)
    assert {name: (made / name).stat().st_mtime_ns for name in files_of(made)} == before
    record = json.loads((made / "studio.json").read_text())
    assert record["synthetic"] is True
    assert record["settings"]["seed"] == 3
    assert "no real person" in (made / "README.txt").read_text().lower()


def test_an_interrupted_folder_is_resumed_to_the_same_bytes(settings: StudioSettings, made: Path) -> None:
    lost = made / "h36m" / "S9" / "Videos" / "SittingDown.55011271.mp4"
    kept = made / "mpii" / "images" / "000000001.jpg"
    content, stamp = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    (made / "studio.json").rename(made / ".studio-begun.json")
    make_studio(settings)
    assert lost.read_bytes() == content
    assert kept.stat().st_mtime_ns == stamp
    assert not (made / ".studio-begun.json").exists()
    assert (made / "studio.json").is_file()


@pytest.mark.parametrize("change", [{"seed": 5}, {"frames": 4}, {"lens_distortion": False}])
def test_other_settings_in_the_same_folder_are_refused(settings: StudioSettings, made: Path, change: dict) -> None:
    with pytest.raises(InputError, match=r"studio\.json: made with other settings"):
        make_studio(replace(settings, **change))


def test_data_of_others_is_never_touched(settings: StudioSettings, tmp_path: Path) -> None:
    (tmp_path / "h36m").mkdir()
    with pytest.raises(InputError, match="the studio did not make it"):
        make_studio(replace(settings, out=tmp_path))
    assert files_of(tmp_path) == []


@pytest.mark.parametrize(("key", "name"), [("subjects", "S2"), ("actions", "Dancing")])
def test_unknown_names_are_refused(settings: StudioSettings, tmp_path: Path, key: str, name: str) -> None:
    with pytest.raises(InputError, match=f"{key}: the studio has no {name}"):
        make_studio(replace(settings, out=tmp_path / "new", **{key: (name,)}))
    assert not (tmp_path / "new").exists()
