"""`pose shards check` says what a raw folder holds, and writes nothing but its sheet."""

import json
import pickle
import shutil

import cdflib
import cv2
import numpy as np
import pytest

import pose
from poselib.errors import InputError
from shards.build import build
from shards.check import check_raw
from shards.settings import BuildSettings, CheckSettings

pytestmark = pytest.mark.unit

READ_AS = {
    "h36m": "X_cam = R (X - T)",
    "h36m_mks0601": "X_cam = R X + t",
    "h36m_kf": "X_cam = R X + t",
    "h36m_eth": "camera frame as stored, pelvis projected onto joint 0",
}


@pytest.mark.parametrize("layout", list(READ_AS))
def test_it_counts_and_says_how_cameras_are_read(layouts, truth, tmp_path, layout):
    report = check_raw(CheckSettings(raw=layouts[layout], sheet=tmp_path / "sheet.png", every=1, pictures=6))
    assert (report.source, report.layout, report.damage) == ("h36m", layout, ())
    expected: dict[tuple, int] = {}
    for frame in truth.frames:
        key = frame.subject, frame.action, frame.camera
        expected[key] = expected.get(key, 0) + 1
    assert report.counts == expected
    assert list(report.notes) == [READ_AS[layout]]
    assert ("no distortion" in report.lens) == (layout in ("h36m_mks0601", "h36m_eth"))
    assert report.pictures == 6
    sheet = cv2.imread(str(report.sheet))
    assert sheet.shape[1] > 6 * 240
    assert sheet.std() > 20
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_the_sheet_shows_each_person_under_its_skeleton(layouts, tmp_path, monkeypatch):
    """The drawn joints lie where the raw annotation puts them, in the scale of the sheet."""
    drawn = []
    monkeypatch.setattr("shards.check.draw_skeleton", lambda picture, joints, known: drawn.append(joints) or picture)
    check_raw(CheckSettings(raw=layouts["h36m_kf"], sheet=tmp_path / "s.jpg", pictures=4))
    assert len(drawn) == 4
    for joints in drawn:
        np.testing.assert_allclose(joints[0], 120, atol=3)  # root2000 centres on the pelvis
        assert 30 < np.ptp(joints[:, 1]) < 240


@pytest.mark.parametrize("source", ["mpii", "voc"])
def test_stills_and_objects_are_checked_too(studio, tmp_path, source):
    report = check_raw(CheckSettings(raw=studio / source, sheet=tmp_path / "sheet.jpg", pictures=3))
    assert report.source == source
    assert sum(report.counts.values()) > 0
    assert report.synthetic
    assert (tmp_path / "sheet.jpg").stat().st_size > 2000


def test_damage_is_listed_before_anything_is_built(layouts, truth, tmp_path, capsys):
    raw = shutil.copytree(layouts["h36m_eth"], tmp_path / "raw")
    path = raw / "annot" / "test.pkl"
    records = pickle.loads(path.read_bytes())
    records[0]["pelvis"] = records[0]["pelvis"] + (300, 0, 0)
    path.write_bytes(pickle.dumps(records))
    torn = raw / "images" / next(f.name for f in truth.frames if f.subject == "S1" and f.index == 0)
    torn.write_bytes(torn.read_bytes()[:300])
    report = check_raw(CheckSettings(raw=raw, sheet=tmp_path / "sheet.jpg"))
    assert {skip.file for skip in report.damage} == {f"images/{records[0]['image']}", str(torn.relative_to(raw))}
    assert pose.main(["shards", "check", str(raw), "--sheet", str(tmp_path / "sheet.jpg")]) == 1
    shown, refused = capsys.readouterr()
    assert "2 of 17 samples in" in refused
    assert "a build would stop" in refused
    assert "its pelvis projects" in shown
    assert "layout h36m_eth" in shown
    assert f"damaged: {torn.relative_to(raw)}" in shown


def test_a_missing_video_is_named_by_the_official_layout(layouts, tmp_path):
    raw = shutil.copytree(layouts["h36m"], tmp_path / "raw")
    gone = next((raw / "S9" / "Videos").glob("*.58860488.mp4"))
    gone.unlink()
    report = check_raw(CheckSettings(raw=raw, sheet=tmp_path / "sheet.jpg", subjects=("S9",), pictures=2))
    assert [skip.file for skip in report.damage] == [str(gone.relative_to(raw))]


def poses_of(raw):
    return next((raw / "S1/MyPoseFeatures/D3_Positions").glob("*.cdf"))


@pytest.mark.parametrize("layout", ["h36m", "h36m_kf"])
def test_poses_that_no_person_has_are_listed_as_a_build_would_skip_them(layouts, raw_writers, tmp_path, layout):
    raw = shutil.copytree(layouts[layout], tmp_path / "raw")
    if layout == "h36m":
        path = poses_of(raw)
        poses = np.asarray(cdflib.CDF(path).varget("Pose"), float).reshape(-1, 32, 3)
        poses[2] = np.nan
        raw_writers.write_poses(path, np.concatenate([poses, poses[:2]]))  # and two without a picture
    else:
        path = next(raw.glob("extra/*.npy"))
        labels = np.load(path, allow_pickle=True).item()
        labels["table"]["keypoints"][1, 3] = np.nan
        np.save(path, labels, allow_pickle=True)
    report = check_raw(CheckSettings(raw=raw, sheet=tmp_path / "sheet.jpg", every=1, pictures=6))
    with pytest.raises(InputError, match="samples are damaged, more than 1%"):
        build(BuildSettings(raw=raw, out=tmp_path / "out", workers=1, stored_px=64, every=1))
    skipped = (tmp_path / "out/.building/skipped.txt").read_text().splitlines()
    assert sorted(map(str, report.damage)) == sorted(skipped)
    assert sum(skip.samples for skip in report.damage) == (4 * 3 if layout == "h36m" else 4)


def test_a_sheet_of_another_kind_is_refused(tmp_path, capsys):
    assert pose.main(["shards", "check", str(tmp_path), "--sheet", "sheet.gif"]) == 2
    assert "sheet must end in .jpg or .png" in capsys.readouterr().err


def test_a_unit_is_refused_in_one_line(layouts, tmp_path, capsys):
    raw = shutil.copytree(layouts["h36m_mks0601"], tmp_path / "raw")
    path = raw / "annotations" / "Human36M_subject1_joint_3d.json"
    poses = json.loads(path.read_text())
    metres = {
        a: {s: {f: (np.array(p) / 1000).tolist() for f, p in v.items()} for s, v in w.items()} for a, w in poses.items()
    }
    path.write_text(json.dumps(metres))
    assert pose.main(["shards", "check", str(raw), "--sheet", str(tmp_path / "sheet.jpg")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "subject1_joint_3d.json: the poses look like metres, not millimetres: a thigh measures 0." in line
    assert not (tmp_path / "sheet.jpg").exists()
