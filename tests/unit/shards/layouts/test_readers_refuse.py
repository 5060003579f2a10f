"""What is wrong with a copy of the data is one line that names it; known faults are handled as the settings say."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest

import shards.build as build_module
from poselib.errors import InputError
from shards.build import build
from shards.readers import find_reader
from shards.records import Skipped
from shards.settings import BuildSettings

pytestmark = pytest.mark.unit

KF_FILE = "extra/human36m-multiview-labels-GTbboxes.npy"


def settings_for(raw, **changes) -> BuildSettings:
    return BuildSettings(raw=raw, **({"out": raw / "out", "workers": 1, "stored_px": 64, "every": 1} | changes))


def read_all(settings) -> list:
    _, reader = find_reader(settings)
    return [item for part in reader.parts(settings) for item in reader.read(settings, part)]


def cut_all(settings) -> list:
    return find_reader(settings)[1].parts(settings)


@pytest.fixture
def copy(layouts, tmp_path):
    """A layout of one's own, to damage."""
    return lambda layout: shutil.copytree(layouts[layout], tmp_path / layout)


def edit_json(path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edit_kf(raw, edit) -> None:
    content = np.load(raw / KF_FILE, allow_pickle=True).item()
    edit(content)
    np.save(raw / KF_FILE, content, allow_pickle=True)


def test_a_raw_position_where_a_translation_belongs_gives_the_same_people(truth, converters, layouts, tmp_path):
    raw = converters.mks0601(truth, tmp_path / "raw", raw_position=True)
    straight = {person.key: person for person in read_all(settings_for(layouts["h36m_mks0601"]))}
    people = read_all(settings_for(raw))
    assert len(people) == len(straight)
    for person in people:
        np.testing.assert_allclose(person.joints_mm, straight[person.key].joints_mm, atol=1e-6)


def test_metres_are_refused_not_scaled(truth, converters, layouts, copy, tmp_path):
    raw = converters.mks0601(truth, tmp_path / "raw", scale=1e-3)
    with pytest.raises(InputError, match=r"joint_3d\.json: the poses look like metres, not millimetres"):
        cut_all(settings_for(raw))
    raw = copy("h36m_kf")
    edit_kf(raw, lambda labels: labels["table"].__setitem__("keypoints", labels["table"]["keypoints"] / 1000))
    with pytest.raises(InputError, match=r"GTbboxes\.npy, S1: the poses look like metres"):
        cut_all(settings_for(raw))


def test_a_camera_of_somebody_else_is_refused(copy):
    raw = copy("h36m_mks0601")

    def swap(cameras):
        cameras["1"], cameras["3"] = cameras["3"], cameras["1"]
        cameras["1"]["t"][2] = -cameras["1"]["t"][2]

    edit_json(raw / "annotations" / "Human36M_subject9_camera.json", swap)
    with pytest.raises(InputError, match=r"subject9_camera\.json, camera 1: neither reading of the camera puts"):
        cut_all(settings_for(raw))
    assert cut_all(settings_for(raw, subjects=("S1",)))


@pytest.mark.parametrize("layout", ["h36m_mks0601", "h36m_eth"])
def test_a_lens_that_the_layout_does_not_know_is_refused(layouts, layout):
    with pytest.raises(InputError, match="stores no distortion, which brown needs; take pinhole"):
        cut_all(settings_for(layouts[layout], lens="brown"))


@pytest.mark.parametrize("layout", ["h36m_mks0601", "h36m_eth", "h36m_kf"])
def test_a_subject_that_is_not_there_is_named(layouts, layout):
    with pytest.raises(InputError, match=r"subjects: S7 not found in .*, which has S1, S9"):
        cut_all(settings_for(layouts[layout], subjects=("S7",)))


def test_a_payload_in_place_of_the_data_never_runs(copy, tmp_path):
    mark = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {mark}",)

    eth, kf = copy("h36m_eth"), copy("h36m_kf")
    (eth / "annot" / "train.pkl").write_bytes(pickle.dumps([Payload()]))
    np.save(kf / KF_FILE, np.array(Payload(), dtype=object), allow_pickle=True)
    for raw, file in ((eth, "train.pkl"), (kf, "GTbboxes.npy")):
        with pytest.raises(InputError, match=rf"{file} asks for posix\.system: only NumPy arrays"):
            build(settings_for(raw))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../../secret.jpg", None, "a\0b.jpg", "a\ud800.jpg"])
def test_a_picture_outside_of_the_folder_is_refused(copy, name):
    raw = copy("h36m_mks0601")
    path = raw / "annotations" / "Human36M_subject1_data.json"
    edit_json(path, lambda data: data["images"][0].__setitem__("file_name", name))
    with pytest.raises(InputError, match=r"subject1_data\.json: .* is no picture's path below the raw folder"):
        cut_all(settings_for(raw))


@pytest.mark.parametrize("column", ["subject_names", "camera_names", "action_names"])
def test_names_that_lead_elsewhere_are_refused(copy, column):
    raw = copy("h36m_kf")
    edit_kf(raw, lambda labels: labels.__setitem__(column, ["../" + labels[column][0], *labels[column][1:]]))
    with pytest.raises(InputError, match=r"labels.*\.npy: '\.\./.*' is no name of a subject, camera or action"):
        cut_all(settings_for(raw))


def test_a_picture_that_is_annotated_twice_is_taken_once(copy, truth, monkeypatch):
    monkeypatch.setattr(build_module, "ALLOWED_SKIPS", 0.1)
    raw = copy("h36m_mks0601")
    path = raw / "annotations" / "Human36M_subject1_data.json"
    edit_json(path, lambda data: data["annotations"].append(data["annotations"][1]))
    shards = build(settings_for(raw, out=raw.with_name("set")))
    assert len(shards) == len(truth.frames)
    (skip,) = shards.manifest.skipped
    assert skip.frame == 1
    assert skip.reason == "it is annotated twice"


def test_broken_annotation_files_are_one_line(copy):
    raw = copy("h36m_mks0601")
    path = raw / "annotations" / "Human36M_subject1_joint_3d.json"
    whole = path.read_text()
    path.write_text(whole[:1000])
    with pytest.raises(InputError, match=r"joint_3d\.json is no JSON file, or cut short"):
        cut_all(settings_for(raw))
    path.unlink()
    with pytest.raises(InputError, match=r"joint_3d\.json cannot be read \(No such file"):
        cut_all(settings_for(raw))
    path.write_text(whole)
    data = raw / "annotations" / "Human36M_subject1_data.json"
    edit_json(
        data, lambda content: content["images"][3].__setitem__("frame_idx", 2 + content["images"][3]["frame_idx"])
    )
    with pytest.raises(InputError, match="its fields say another frame or camera"):
        cut_all(settings_for(raw))
    camera = raw / "annotations" / "Human36M_subject9_camera.json"
    edit_json(camera, lambda content: content["2"].pop("f"))
    with pytest.raises(InputError, match=r"subject9_camera\.json: camera 2 lacks R, t, f or c"):
        cut_all(settings_for(raw, subjects=("S9",)))
    edit_kf(kf := copy("h36m_kf"), lambda labels: labels.pop("table"))
    with pytest.raises(InputError, match="must hold a dictionary of subject_names"):
        cut_all(settings_for(kf))


def test_single_damage_is_named_with_its_frame_and_the_rest_is_kept(copy, truth):
    raw = copy("h36m_mks0601")
    poses = raw / "annotations" / "Human36M_subject1_joint_3d.json"
    edit_json(poses, lambda content: content["2"][next(iter(content["2"]))].pop("2"))
    edit_json(poses, lambda content: content["9"][next(iter(content["9"]))]["3"][4].__setitem__(0, float("nan")))
    torn = raw / "images" / next(f.name for f in truth.frames if f.subject == "S9" and f.index == 1)
    torn.write_bytes(torn.read_bytes()[:400])
    items = read_all(settings_for(raw))
    skipped = [item for item in items if isinstance(item, Skipped)]
    assert len(skipped) == 4 + 4 + 1
    assert len(items) == len(truth.frames)
    assert any("no pose 17 x 3" in skip.reason and skip.frame == 2 for skip in skipped)
    assert any("not finite" in skip.reason and skip.frame == 3 for skip in skipped)
    assert any(skip.file == str(torn.relative_to(raw)) and skip.frame == 1 for skip in skipped)


def test_joints_that_eth_marks_unknown_do_not_supervise(copy):
    raw = copy("h36m_eth")
    path = raw / "annot" / "test.pkl"
    records = pickle.loads(path.read_bytes())
    records[0]["joints_3d_vis"][13] = 0
    path.write_bytes(pickle.dumps(records))
    people = read_all(settings_for(raw, subjects=("S9",)))
    marked = [person for person in people if not person.supervised_px.all()]
    assert [np.flatnonzero(person.supervised_mm == 0).tolist() for person in marked] == [[13]]
    assert not marked[0].joints_mm[13].any()


def test_a_view_that_kf_has_no_box_for_is_missing_not_damaged(copy, truth):
    raw = copy("h36m_kf")
    edit_kf(raw, lambda labels: labels["table"]["bbox_by_camera_tlbr"].__setitem__((0, 2), 0))
    items = read_all(settings_for(raw))
    assert len(items) == len(truth.frames) - 1
    assert not [item for item in items if isinstance(item, Skipped)]


def test_hrnet_records_without_their_fields_are_named(copy):
    raw = copy("mpii_hrnet")
    path = raw / "annot" / "train.json"
    before = read_all(settings_for(raw))
    edit_json(path, lambda records: records[0].pop("scale"))
    edit_json(path, lambda records: records[1].__setitem__("center", [float("nan"), 1.0]))
    items = read_all(settings_for(raw))
    skipped = [item.reason for item in items if isinstance(item, Skipped)]
    assert len(items) == len(before)
    assert sorted(reason.partition(":")[0] for reason in skipped) == [
        "record 0 of train.json",
        "record 1 of train.json",
    ]
    path.write_text("{}")
    with pytest.raises(InputError, match=r"train\.json must be a list of objects"):
        cut_all(settings_for(raw))


@pytest.fixture
def shifted(copy, truth):
    """KF's labels with S9's first action renamed to Greeting-2 and shifted, as the release has it."""
    raw = copy("h36m_kf")
    folder = raw / "processed" / "S9"
    old = sorted(path.name for path in folder.iterdir())[0]
    shutil.move(folder / old, folder / "Greeting-2")

    def edit(labels):
        labels["action_names"].append("Greeting-2")
        table = labels["table"]
        rows = (table["subject_idx"] == 1) & (table["action_idx"] == labels["action_names"].index(old))
        table["action_idx"][rows] = len(labels["action_names"]) - 1
        table["keypoints"][rows, :, 0] += 200

    edit_kf(raw, edit)
    action, _, subaction = old.partition("-")
    return raw, {
        f"S9_Greeting_2_{frame.camera}_{frame.index:06d}": truth.in_camera(frame)
        for frame in truth.frames
        if (frame.subject, frame.action, str(frame.subaction)) == ("S9", action, subaction)
    }


@pytest.mark.parametrize(("mode", "word"), [("correct", "moved back"), ("skip", "skipped"), ("keep", "kept")])
def test_shifted_poses_are_handled_as_the_setting_says(shifted, mode, word):
    raw, expected = shifted
    settings = settings_for(raw, shifted_poses=mode)
    people = {person.key: person for person in read_all(settings) if person.key in expected}
    assert len(people) == (0 if mode == "skip" else len(expected))
    for key, person in people.items():
        off = np.linalg.norm(person.joints_mm - expected[key], axis=-1)
        np.testing.assert_allclose(off, 0 if mode == "correct" else 200, atol=0.01)
    (line,) = build(settings).manifest.known_faults
    assert line.startswith(f"S9 Greeting: poses are shifted by 200 mm along world X; {word}")
    assert line.endswith(f"(shifted_poses: {mode})")
    assert build(settings).manifest.settings["shifted_poses"] == mode


def test_correcting_is_the_default():
    assert BuildSettings.shifted_poses == "correct"
    assert BuildSettings.faulty_videos == "skip"


@pytest.mark.parametrize("mode", ["skip", "keep"])
def test_the_faulty_video_is_handled_as_the_setting_says(copy, mode):
    raw = copy("h36m_kf")
    shutil.move(raw / "processed" / "S9", raw / "processed" / "S11")
    name = next(
        path.name for path in sorted((raw / "processed" / "S11").iterdir()) if path.name.startswith("Directions")
    )
    if name != "Directions-2":
        shutil.move(raw / "processed" / "S11" / name, raw / "processed" / "S11" / "Directions-2")

    def edit(labels):
        labels["subject_names"][1] = "S11"
        labels["action_names"][labels["action_names"].index(name)] = "Directions-2"

    edit_kf(raw, edit)
    settings = settings_for(raw, subjects=("S11",), faulty_videos=mode)
    seen = {person.names.camera for person in read_all(settings) if person.names.action == "Directions"}
    assert ("54138969" in seen) == (mode == "keep")
    assert len(seen) == (4 if mode == "keep" else 3)
    (line,) = find_reader(settings)[1].faults(settings)
    assert line.startswith("S11 Directions, camera 54138969: video and poses disagree")
    assert line.endswith(f"(faulty_videos: {mode})")


def test_a_layout_of_another_source_is_refused(layouts):
    with pytest.raises(InputError, match="layout: mpii_hrnet is no layout of h36m"):
        find_reader(settings_for(layouts["h36m"], source="h36m", layout="mpii_hrnet"))
    with pytest.raises(
        InputError, match=r"holds no known layout, but looks like h36m \(looked for h36m_kf: human36m-multiview"
    ):
        find_reader(settings_for(layouts["h36m"], layout="h36m_kf"))
