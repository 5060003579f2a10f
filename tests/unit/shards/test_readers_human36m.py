import shutil
import signal

import cv2
import numpy as np
import pytest

from poselib.camera import apply_affine, back_project, project, world_to_camera
from poselib.errors import InputError
from poselib.skeleton import H36M_FROM_RAW32
from shards.build import build
from shards.readers import READERS, find_reader, h36m_poses
from shards.readers import human36m as reader
from shards.readers.h36m_metadata import guess_take, read_metadata, rotation_matrix
from shards.readers.h36m_person import count_wanted, is_wanted
from shards.records import Skipped
from shards.settings import BuildSettings
from shards.source import Person

pytestmark = pytest.mark.unit


def settings_for(raw, out, **changes) -> BuildSettings:
    return BuildSettings(raw=raw, out=out, **({"workers": 1, "stored_px": 64} | changes))


def read_all(settings) -> list:
    return [item for part in reader.parts(settings) for item in reader.read(settings, part)]


@pytest.fixture
def own_copy(human36m, tmp_path):
    """The raw folder, to damage."""
    return shutil.copytree(human36m.raw, tmp_path / "raw")


def test_rotation_is_that_of_the_published_euler_order():
    x, y, z = np.eye(3)
    quarter = np.pi / 2
    np.testing.assert_allclose(rotation_matrix(np.array([quarter, 0, 0])) @ y, z, atol=1e-12)
    np.testing.assert_allclose(rotation_matrix(np.array([0, quarter, 0])) @ z, x, atol=1e-12)
    np.testing.assert_allclose(rotation_matrix(np.array([0, 0, quarter])) @ x, y, atol=1e-12)
    np.testing.assert_allclose(rotation_matrix(np.array([quarter, 0, quarter])) @ x, z, atol=1e-12)


def test_metadata_gives_each_subject_and_camera_its_own_numbers(human36m):
    metadata = read_metadata(human36m.raw / "metadata.xml")
    assert len(metadata.cameras) == 44
    camera = metadata.cameras["S11", "55011271"]
    np.testing.assert_array_equal(camera.position_mm, human36m.w0[6 * (1 * 11 + 10) + 3 :][:3])
    np.testing.assert_array_equal(np.r_[camera.intrinsics, camera.distortion], human36m.w0[264 + 9 :][:9])
    assert metadata.takes["S1", "Directions"] == ("Directions", 2)
    assert metadata.takes["S1", "Photo 1"] == ("TakingPhoto", 1)


@pytest.mark.parametrize(
    ("stem", "stems", "expected"),
    [
        ("Walking", ["Walking", "Walking 1"], ("Walking", 2)),
        ("Walking 1", ["Walking", "Walking 1"], ("Walking", 1)),
        ("Eating 2", ["Eating", "Eating 2"], ("Eating", 1)),
        ("WalkDog", ["WalkDog"], ("WalkingDog", 1)),
    ],
)
def test_recordings_that_the_mapping_lacks_are_guessed(stem, stems, expected):
    assert guess_take(stem, stems) == expected


@pytest.mark.parametrize("lens", ["pinhole", "brown", "undistorted"])
@pytest.mark.parametrize("box", ["root2000", "tight"])
def test_stored_samples_lead_back_to_the_raw_annotation(human36m, tmp_path, lens, box):
    shards = build(settings_for(human36m.raw, tmp_path / "out", lens=lens, box=box, cover_width=1.3, cover_height=1.2))
    assert shards.manifest.samples == 27
    stems = {
        ("S1", "Directions", 1): "Directions 1",
        ("S1", "Directions", 2): "Directions",
        ("S1", "TakingPhoto", 1): "Photo 1",
    }
    stems |= {("S11", "Directions", 2): "Directions", ("S11", "Walking", 1): "Walking 1"}
    for row in range(0, 27, 4):
        sample = shards.read(row)
        names, arrays = sample.names, {name: value.astype(float) for name, value in sample.arrays.items()}
        stem = stems[names.subject, names.action, names.subaction]
        truth = human36m.in_camera(names.subject, stem, names.camera, names.frame)
        intrinsics, distortion = human36m.lens(names.camera)
        np.testing.assert_allclose(arrays["joints_mm"], truth, atol=0.01)
        in_frame = apply_affine(arrays["frame_from_stored"], arrays["joints_px"])
        np.testing.assert_allclose(
            in_frame, project(truth, intrinsics, distortion if lens == "brown" else None), atol=0.01
        )
        own_lens = arrays["distortion"] if lens == "brown" else None
        back = back_project(arrays["joints_px"], arrays["joints_mm"][:, 2], arrays["intrinsics"], own_lens)
        np.testing.assert_allclose(back, truth, atol=0.1)


@pytest.mark.parametrize("lens", ["brown", "undistorted"])
@pytest.mark.parametrize("stored_px", [40, 64, 384])
def test_the_picture_shows_the_joint_where_the_sample_says(human36m, tmp_path, lens, stored_px):
    shards = build(settings_for(human36m.raw, tmp_path / "out", lens=lens, stored_px=stored_px, subjects=("S1",)))
    for row in range(0, len(shards), 5):
        sample = shards.read(row)
        picture = cv2.imdecode(np.frombuffer(sample.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE).astype(float)
        light = np.where(picture > 100, picture - 100, 0)
        ys, xs = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
        spot = np.array([(xs * light).sum(), (ys * light).sum()]) / light.sum()
        to_frame = sample.arrays["frame_from_stored"][0, 0]
        assert np.abs(spot - sample.arrays["joints_px"][13]).max() * to_frame < 0.35


def test_frames_kept_are_counted_from_zero(human36m, tmp_path):
    settings = settings_for(human36m.raw, tmp_path, every=5, every_test=4)
    assert [frame for frame in range(12) if is_wanted(frame, settings)] == [0, 4, 5, 8, 10]
    for every, every_test in ((5, 4), (7, 0), (4, 6), (1, 64), (5, 5)):
        settings = settings_for(human36m.raw, tmp_path, every=every, every_test=every_test)
        kept = [is_wanted(frame, settings) for frame in range(70)]
        assert [count_wanted(frames, settings) for frames in range(71)] == [sum(kept[:n]) for n in range(71)]
    assert count_wanted(2**40, settings) == -(-(2**40) // 5)


def test_a_pose_file_whose_records_run_in_circles_is_damaged(human36m, tmp_path, monkeypatch):
    content = bytearray((human36m.raw / "S1/MyPoseFeatures/D3_Positions/Directions.cdf").read_bytes())

    def number(place: int) -> int:
        return int.from_bytes(content[place : place + 8], "big")

    overview = number(20)
    variable = number(overview + 20)
    content[overview + 60 : overview + 64] = (2**31 - 1).to_bytes(4, "big")  # so many variables
    content[variable + 12 : variable + 20] = variable.to_bytes(8, "big")  # the next variable is itself
    content[variable + 84 : variable + 88] = b"Nose"
    path = tmp_path / "circle.cdf"
    path.write_bytes(content)
    monkeypatch.setattr(h36m_poses, "READING_S", 0.2)
    handler = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(ValueError, match=r"no readable CDF file .*TimeoutError: its records lead nowhere"):
        h36m_poses.read_poses(path)
    assert signal.getsignal(signal.SIGVTALRM) == handler
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_the_known_faulty_video_is_left_out_and_named(human36m, tmp_path):
    settings = settings_for(human36m.raw, tmp_path)
    seen = {(p.names.subject, p.names.action, p.names.subaction, p.names.camera) for p in read_all(settings)}
    assert ("S11", "Directions", 2, "54138969") not in seen
    assert ("S11", "Directions", 2, "55011271") in seen
    assert ("S1", "Directions", 2, "54138969") in seen
    assert reader.faults(settings) == (
        "S11 Directions, camera 54138969: video and poses disagree; skipped (faulty_videos: skip)",
    )
    assert reader.faults(settings_for(human36m.raw, tmp_path, subjects=("S1",))) == ()


@pytest.mark.parametrize("mode", ["correct", "skip", "keep"])
def test_poses_known_to_be_shifted_are_told_by_file_name(human36m, tmp_path, mode):
    raw = tmp_path / "raw"
    for source in sorted(human36m.raw.rglob("*")):
        if source.is_file() and (source.parent == human36m.raw or "S1" in source.parts):
            name = source.name.replace("Photo 1", "SittingDown 1").replace("Directions 1", "Waiting 2")
            target = raw / source.relative_to(human36m.raw).with_name(name)
            target = raw / str(target.relative_to(raw)).replace("S1/", "S9/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    settings = settings_for(raw, tmp_path / "out", shifted_poses=mode)
    people = [person for person in read_all(settings) if isinstance(person, Person)]
    stems = {person.names.picture.split("/")[-1].split(".")[0] for person in people}
    assert ("SittingDown 1" in stems) == (mode != "skip")
    assert {"Directions", "Waiting 2"} <= stems
    cameras = read_metadata(raw / "metadata.xml").cameras
    for person in people:
        camera, stem = cameras["S9", person.names.camera], person.names.picture.split("/")[-1].split(".")[0]
        original = {"SittingDown 1": "Photo 1", "Waiting 2": "Directions 1"}.get(stem, stem)
        world = human36m.poses["S1", original][person.names.frame][list(H36M_FROM_RAW32)]
        moved = world - (200, 0, 0) if (stem, mode) == ("SittingDown 1", "correct") else world
        np.testing.assert_allclose(
            person.joints_mm, world_to_camera(moved, camera.rotation, camera.position_mm), atol=1e-6
        )
    word = {"correct": "moved back", "skip": "skipped", "keep": "kept as they are"}[mode]
    assert reader.faults(settings) == (
        f"S9 SittingDown 1: poses are shifted by 200 mm along world X; {word} (shifted_poses: {mode})",
    )


def test_poses_in_metres_and_cameras_that_see_nobody_are_named(human36m, own_copy, tmp_path, raw_writers):
    path = own_copy / "S1/MyPoseFeatures/D3_Positions/Directions 1.cdf"
    raw_writers.write_poses(path, human36m.poses["S1", "Directions 1"] / 1000)
    away = human36m.poses["S1", "Photo 1"] + (0, 0, 5000)
    raw_writers.write_poses(own_copy / "S1/MyPoseFeatures/D3_Positions/Photo 1.cdf", away)
    skipped = [i for i in read_all(settings_for(own_copy, tmp_path, subjects=("S1",))) if isinstance(i, Skipped)]
    metres = [skip for skip in skipped if "look like metres" in skip.reason]
    nobody = [skip for skip in skipped if "neither reading of the camera" in skip.reason]
    assert [(skip.file, skip.samples) for skip in metres] == [("S1/MyPoseFeatures/D3_Positions/Directions 1.cdf", 6)]
    assert [skip.file for skip in nobody] == [f"S1/Videos/Photo 1.{c}.mp4" for c in ("54138969", "55011271")]
    assert len(skipped) == 3


def test_truncated_and_missing_videos_are_named_and_the_rest_is_kept(own_copy, tmp_path):
    torn = own_copy / "S1/Videos/Directions.54138969.mp4"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    (own_copy / "S1/Videos/Photo 1.55011271.mp4").unlink()
    items = read_all(settings_for(own_copy, tmp_path, subjects=("S1",)))
    skipped = [item for item in items if isinstance(item, Skipped)]
    assert [(s.file, s.frame, s.samples) for s in skipped] == [
        ("S1/Videos/Directions.54138969.mp4", -1, 3),
        ("S1/Videos/Photo 1.55011271.mp4", -1, 3),
    ]
    assert "missing" in skipped[1].reason
    assert len(items) - len(skipped) == 12


def test_a_video_cut_short_gives_its_whole_frames(human36m, own_copy, tmp_path, raw_writers):
    rng = np.random.default_rng(0)
    path = own_copy / "S1/Videos/Directions.54138969.mp4"
    noise = [rng.integers(0, 255, (168, 160, 3), dtype=np.uint8) for _ in range(12)]
    raw_writers.write_video(path, noise, movflags="faststart")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    items = read_all(settings_for(own_copy, tmp_path, subjects=("S1",)))
    skipped = [item for item in items if isinstance(item, Skipped)]
    assert [(s.file, s.frame, s.samples) for s in skipped] == [("S1/Videos/Directions.54138969.mp4", 10, 1)]
    assert len(items) - len(skipped) == 17


def test_a_video_shorter_or_much_longer_than_its_poses_is_named(human36m, own_copy, tmp_path, raw_writers):
    poses = human36m.poses["S1", "Directions 1"]
    path = own_copy / "S1/MyPoseFeatures/D3_Positions/Directions 1.cdf"
    raw_writers.write_poses(path, np.concatenate([poses, poses]))
    longer = [i for i in read_all(settings_for(own_copy, tmp_path, subjects=("S1",))) if isinstance(i, Skipped)]
    assert [(s.frame, s.samples) for s in longer] == [(15, 2), (15, 2)]
    assert "ends before" in longer[0].reason
    raw_writers.write_poses(path, poses[:6])
    shorter = [i for i in read_all(settings_for(own_copy, tmp_path, subjects=("S1",))) if isinstance(i, Skipped)]
    assert [(s.frame, s.samples) for s in shorter] == [(-1, 3), (-1, 3)]
    assert "12 frames, its pose file 6" in shorter[0].reason


def test_poses_that_are_not_finite_or_off_the_picture_are_named_with_their_frame(
    human36m, own_copy, tmp_path, raw_writers
):
    poses = human36m.poses["S1", "Directions 1"].copy()
    poses[5, 3, 1] = np.nan
    poses[10] += (0, 0, 3000)
    raw_writers.write_poses(own_copy / "S1/MyPoseFeatures/D3_Positions/Directions 1.cdf", poses)
    items = read_all(settings_for(own_copy, tmp_path, subjects=("S1",)))
    skipped = [item for item in items if isinstance(item, Skipped)]
    assert [s.frame for s in skipped] == [5, 10, 5, 10]
    assert "not finite" in skipped[0].reason
    assert "17 of 17 joints lie outside the 160x168 picture" in skipped[1].reason


def test_a_damaged_pose_file_is_named(own_copy, tmp_path):
    path = own_copy / "S1/MyPoseFeatures/D3_Positions/Directions 1.cdf"
    path.write_bytes(path.read_bytes()[:200])
    skipped = [i for i in read_all(settings_for(own_copy, tmp_path)) if isinstance(i, Skipped)]
    assert [s.file for s in skipped] == ["S1/MyPoseFeatures/D3_Positions/Directions 1.cdf"]


def test_metadata_that_is_no_metadata_is_one_clear_line(own_copy):
    path = own_copy / "metadata.xml"
    text = path.read_text()
    path.write_text(text.replace("<w0>[", "<w0>[1.0 "))
    with pytest.raises(InputError, match=r"w0 must hold 300 finite numbers, found 301"):
        read_metadata(path)
    path.write_text(text[:500])
    with pytest.raises(InputError, match="cannot be read as XML"):
        read_metadata(path)


def test_a_subject_that_is_not_there_is_named(human36m, tmp_path):
    with pytest.raises(InputError, match=r"S7 not found in .*, which has S1, S11"):
        reader.parts(settings_for(human36m.raw, tmp_path, subjects=("S1", "S7")))


def test_poses_without_any_video_are_refused(own_copy, tmp_path):
    shutil.rmtree(own_copy / "S11" / "Videos")
    with pytest.raises(InputError, match="S11/Videos holds no video of a known camera"):
        reader.parts(settings_for(own_copy, tmp_path))
    assert len(reader.parts(settings_for(own_copy, tmp_path, subjects=("S1",)))) == 3


def test_layouts_are_told_apart_by_looking(human36m, mpii, voc, tmp_path):
    for raw, name in ((human36m.raw, "h36m"), (mpii[0], "mpii"), (voc, "voc")):
        assert find_reader(settings_for(raw, tmp_path))[0] == name
    with pytest.raises(InputError, match=r"holds no known layout .*metadata\.xml.*mpii_human_pose.*JPEGImages"):
        find_reader(settings_for(tmp_path, tmp_path))
    with pytest.raises(InputError, match="is not a folder"):
        find_reader(settings_for(tmp_path / "nothing", tmp_path))
    with pytest.raises(InputError, match=r"looked for mpii"):
        find_reader(settings_for(human36m.raw, tmp_path, source="mpii"))
    assert {reader.source for reader in READERS.values()} == {"h36m", "mpii", "voc"}
