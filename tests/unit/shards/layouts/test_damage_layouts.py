"""Each damage in each layout where it can occur: named, skipped by default, the first one under `strict`, refused above
one percent; what is left has the labels that it had.
"""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import scipy.io

import shards.build as build_module
from poselib.errors import InputError
from shards.build import build
from shards.manifest import ShardSet
from shards.readers import find_reader
from shards.records import Skipped
from shards.settings import BuildSettings

pytestmark = pytest.mark.unit

POSES = "S1/MyPoseFeatures/D3_Positions"


def settings_for(raw, **changes) -> BuildSettings:
    return BuildSettings(raw=raw, **({"out": raw.parent / "out", "workers": 1, "stored_px": 64, "every": 1} | changes))


def first(raw: Path, pattern: str) -> Path:
    return sorted(raw.glob(pattern))[0]


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def edit_json(path: Path, edit: Callable) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def edit_pickle(path: Path, edit: Callable) -> None:
    content = pickle.loads(path.read_bytes())
    edit(content)
    path.write_bytes(pickle.dumps(content))


def edit_kf(raw: Path, edit: Callable) -> None:
    path = first(raw, "extra/*.npy")
    content = np.load(path, allow_pickle=True).item()
    edit(content["table"])
    np.save(path, content, allow_pickle=True)


def edit_mat(raw: Path, edit: Callable) -> None:
    path = first(raw, "*.mat")
    release = scipy.io.loadmat(path, struct_as_record=False)["RELEASE"]
    people = [
        entry.annorect[0, 0]
        for entry, training in zip(release[0, 0].annolist[0], release[0, 0].img_train.ravel(), strict=True)
        if training and entry.annorect.size and entry.annorect[0, 0].annopoints.size
    ]
    edit(people[0])
    scipy.io.savemat(path, {"RELEASE": release})


def mks_pose(raw: Path, change: Callable) -> None:
    def edit(poses):
        frames = poses["2"][next(iter(poses["2"]))]
        frames["1"] = change(np.array(frames["1"])).tolist()

    edit_json(raw / "annotations/Human36M_subject1_joint_3d.json", edit)


def eth_record(raw: Path, change: Callable) -> None:
    edit_pickle(raw / "annot/test.pkl", lambda records: records[1].update(change(records[1])))


def kf_pose(raw: Path, change: Callable) -> None:
    def edit(table):
        table["keypoints"][1] = change(table["keypoints"][1])

    edit_kf(raw, edit)


def with_nan(joints: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(joints))[:, None] == 3, np.nan, joints)


def half_size(path: Path) -> None:
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), None, fx=0.5, fy=0.5))


def official_poses(raw: Path, writer: Callable, change: Callable) -> None:
    import cdflib

    path = first(raw, f"{POSES}/*.cdf")
    writer(path, change(np.asarray(cdflib.CDF(path).varget("Pose"), float).reshape(-1, 32, 3)))


def drop_key(name: str) -> Callable:
    return lambda records: records[0].pop(name)


OUT = (0.0, 0.0, 6000.0)
DAMAGE: dict[str, tuple[str, Callable[[Path, SimpleNamespace], None], str]] = {
    "h36m video cut": ("h36m", lambda raw, w: cut(first(raw, "S1/Videos/*")), r"S1/Videos/\S+( \d)?\.\d+\.mp4"),
    "h36m video empty": ("h36m", lambda raw, w: first(raw, "S1/Videos/*").write_bytes(b""), r"S1/Videos/.*\.mp4"),
    "h36m video missing": ("h36m", lambda raw, w: first(raw, "S1/Videos/*").unlink(), "video is missing"),
    "h36m camera missing": (
        "h36m",
        lambda raw, w: [path.unlink() for path in raw.glob("S1/Videos/*.55011271.mp4")],
        r"55011271\.mp4: the video is missing",
    ),
    "h36m poses cut": ("h36m", lambda raw, w: cut(first(raw, f"{POSES}/*")), r"\.cdf: no readable CDF file"),
    "h36m poses missing": ("h36m", lambda raw, w: first(raw, f"{POSES}/*").unlink(), "the pose file is missing"),
    "h36m poses too short": (
        "h36m",
        lambda raw, w: official_poses(raw, w.write_poses, lambda poses: poses[:1]),
        "the video has 4 frames, its pose file 1",
    ),
    "h36m poses too long": (
        "h36m",
        lambda raw, w: official_poses(raw, w.write_poses, lambda poses: np.concatenate([poses, poses])),
        "frame 4: the video ends before its poses do",
    ),
    "h36m poses of 31 joints": (
        "h36m",
        lambda raw, w: official_poses(raw, w.write_poses, lambda poses: poses[:, :31]),
        "Pose must be 1 x frames x 96, found 1 x 4 x 93",
    ),
    "h36m nan": (
        "h36m",
        lambda raw, w: official_poses(raw, w.write_poses, lambda p: np.concatenate([p[:2], p[2:3] * np.nan, p[3:]])),
        "frame 2: the pose is not finite",
    ),
    "h36m out of the picture": (
        "h36m",
        lambda raw, w: official_poses(raw, w.write_poses, lambda p: p + np.array([0, 0, 1, 0])[:, None, None] * OUT),
        "frame 2: .*(outside|behind)",
    ),
    "mks0601 picture cut": ("h36m_mks0601", lambda raw, w: cut(first(raw, "images/*/*.jpg")), "frame 0: .*truncated"),
    "mks0601 picture missing": ("h36m_mks0601", lambda raw, w: first(raw, "images/*/*.jpg").unlink(), "No such file"),
    "mks0601 picture scaled": (
        "h36m_mks0601",
        lambda raw, w: half_size(first(raw, "images/*/*.jpg")),
        "scaled or cropped",
    ),
    "mks0601 nan": ("h36m_mks0601", lambda raw, w: mks_pose(raw, with_nan), "frame 1: the pose is not finite"),
    "mks0601 out of the picture": ("h36m_mks0601", lambda raw, w: mks_pose(raw, lambda p: p + OUT), "frame 1: "),
    "mks0601 pose of 16": ("h36m_mks0601", lambda raw, w: mks_pose(raw, lambda p: p[:16]), "frame 1: .*no pose 17 x 3"),
    "eth picture cut": ("h36m_eth", lambda raw, w: cut(first(raw, "images/*/*.jpg")), "frame 0: .*truncated"),
    "eth picture missing": ("h36m_eth", lambda raw, w: first(raw, "images/*/*.jpg").unlink(), "No such file"),
    "eth picture scaled": ("h36m_eth", lambda raw, w: half_size(first(raw, "images/*/*.jpg")), "scaled or cropped"),
    "eth nan": (
        "h36m_eth",
        lambda raw, w: eth_record(raw, lambda r: {"joints_3d": with_nan(r["joints_3d"])}),
        "is not finite",
    ),
    "eth pelvis elsewhere": (
        "h36m_eth",
        lambda raw, w: eth_record(raw, lambda r: {"pelvis": r["pelvis"] + (900, 0, 0)}),
        "its pelvis projects",
    ),
    "eth field missing": (
        "h36m_eth",
        lambda raw, w: eth_record(raw, lambda r: {"pelvis": None}),
        "not as this layout has it",
    ),
    "kf picture cut": ("h36m_kf", lambda raw, w: cut(first(raw, "processed/*/*/*/*/*.jpg")), "frame 0: .*truncated"),
    "kf picture missing": ("h36m_kf", lambda raw, w: first(raw, "processed/*/*/*/*/*.jpg").unlink(), "No such file"),
    "kf picture scaled": (
        "h36m_kf",
        lambda raw, w: half_size(sorted(raw.glob("processed/*/*/*/*/*.jpg"))[2]),
        "scaled or",
    ),
    "kf nan": ("h36m_kf", lambda raw, w: kf_pose(raw, with_nan), "frame 1: the pose is not finite"),
    "kf out of the picture": ("h36m_kf", lambda raw, w: kf_pose(raw, lambda p: p + OUT), "frame 1: "),
    "mpii picture cut": ("mpii", lambda raw, w: cut(first(raw, "images/*.jpg")), r"images/\d+\.jpg: .*truncated"),
    "mpii picture missing": (
        "mpii",
        lambda raw, w: first(raw, "images/*.jpg").unlink(),
        r"images/\d+\.jpg: No such file",
    ),
    "mpii field missing": (
        "mpii",
        lambda raw, w: edit_mat(raw, lambda p: setattr(p, "scale", np.zeros((0, 0)))),
        "person 0 has joints but no",
    ),
    "mpii nan": (
        "mpii",
        lambda raw, w: edit_mat(raw, lambda p: setattr(p, "scale", np.array([[np.nan]]))),
        "person 0 has joints",
    ),
    "mpii out of the picture": (
        "mpii",
        lambda raw, w: edit_mat(
            raw, lambda p: [setattr(q, "x", q.x + 9000.0) for q in p.annopoints[0, 0].point.ravel()]
        ),
        "joints lie outside the",
    ),
    "hrnet picture cut": (
        "mpii_hrnet",
        lambda raw, w: cut(first(raw, "images/*.jpg")),
        r"images/\d+\.jpg: .*truncated",
    ),
    "hrnet field missing": (
        "mpii_hrnet",
        lambda raw, w: edit_json(raw / "annot/train.json", drop_key("joints")),
        "record 0",
    ),
    "hrnet nan": (
        "mpii_hrnet",
        lambda raw, w: edit_json(raw / "annot/train.json", lambda r: r[0]["joints"][2].__setitem__(0, float("nan"))),
        "record 0 of train.json: a joint, center or scale is not a finite number",
    ),
    "hrnet out of the picture": (
        "mpii_hrnet",
        lambda raw, w: edit_json(raw / "annot/train.json", lambda r: [j.__setitem__(0, -9e3) for j in r[0]["joints"]]),
        "joints lie outside the",
    ),
    "voc picture cut": ("voc", lambda raw, w: cut(first(raw, "JPEGImages/*")), r"JPEGImages/\S+\.jpg: .*truncated"),
    "voc picture missing": ("voc", lambda raw, w: first(raw, "JPEGImages/*").unlink(), "No such file"),
    "voc annotation cut": ("voc", lambda raw, w: cut(first(raw, "Annotations/*")), r"Annotations/\S+\.xml: "),
    "voc box out of the picture": (
        "voc",
        lambda raw, w: first(raw, "Annotations/*").write_text(
            first(raw, "Annotations/*").read_text().replace("<xmin>", "<xmin>9")
        ),
        "has the bndbox",
    ),
    "voc nan": (
        "voc",
        lambda raw, w: first(raw, "Annotations/*").write_text(
            re.sub("<xmin>[^<]*", "<xmin>nan", first(raw, "Annotations/*").read_text())
        ),
        "not finite",
    ),
}


ANNOTATED_BEYOND = {"h36m poses too long": 4 * 4}
"""Samples that a damaged annotation promises on top: four poses without a picture, for each of four cameras."""


@pytest.fixture(scope="module")
def sound(layouts, studio, tmp_path_factory) -> dict[str, dict]:
    """Keys and numbers of the undamaged layouts."""
    return {}


def content(shards: ShardSet) -> dict[str, bytes]:
    if shards.manifest.kind == "occluders":
        return {}
    samples = [shards.read(row) for row in range(len(shards))]
    return {sample.key: b"".join(array.tobytes() for array in sample.arrays.values()) for sample in samples}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_damage_is_named_skipped_and_never_changes_a_label(
    layouts, studio, raw_writers, sound, tmp_path, monkeypatch, name
):
    layout, damage, message = DAMAGE[name]
    source = layouts.get(layout, studio / layout)
    raw = shutil.copytree(source, tmp_path / "raw")
    damage(raw, raw_writers)

    with pytest.raises(InputError, match=r"samples are damaged, more than 1%: repair them.*the first: "):
        build(settings_for(raw))
    assert re.search(message, (tmp_path / "out/.building/skipped.txt").read_text())

    with pytest.raises(InputError, match=rf"{message}.*\(strict: stopped at the first damaged sample\)"):
        build(settings_for(raw, out=tmp_path / "strict", strict=True))

    monkeypatch.setattr(build_module, "ALLOWED_SKIPS", 0.9)
    shards = build(settings_for(raw))
    assert shards.manifest.skipped
    assert all(re.search(message, str(skip)) for skip in shards.manifest.skipped)
    if layout not in sound:
        sound[layout] = content(build(settings_for(source, out=tmp_path / "sound")))
    kept, whole = content(shards), sound[layout]
    lost = sum(skip.samples for skip in shards.manifest.skipped)
    assert kept.items() <= whole.items()
    if whole:
        assert len(kept) + lost == len(whole) + ANNOTATED_BEYOND.get(name, 0)


class Payload:
    """Would make a file if it were unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


WHOLE_FILES = {
    "h36m": ("metadata.xml", "cannot be read as XML"),
    "h36m_mks0601": ("annotations/Human36M_subject1_data.json", "is no JSON file, or cut short"),
    "h36m_eth": ("annot/train.pkl", "is damaged or no such file"),
    "h36m_kf": ("extra/human36m-multiview-labels-GTbboxes.npy", "is damaged or no such file"),
    "mpii": ("mpii_human_pose_v1_u12_1.mat", "cannot be read: it must hold RELEASE"),
    "mpii_hrnet": ("annot/train.json", "is no JSON file, or cut short"),
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("layout", list(WHOLE_FILES))
def test_an_annotation_file_cut_short_is_one_line_in_every_layout(layouts, tmp_path, layout, strict):
    raw = shutil.copytree(layouts[layout], tmp_path / "raw")
    file, message = WHOLE_FILES[layout]
    cut(raw / file)
    with pytest.raises(InputError, match=rf"{re.escape(file)} {message}") as caught:
        build(settings_for(raw, strict=strict))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("layout", ["h36m_eth", "h36m_kf"])
def test_a_payload_is_refused_under_strict_too(layouts, tmp_path, layout):
    raw, mark = shutil.copytree(layouts[layout], tmp_path / "raw"), tmp_path / "ran"
    if layout == "h36m_eth":
        (raw / "annot/train.pkl").write_bytes(pickle.dumps([Payload(mark)]))
    else:
        np.save(first(raw, "extra/*.npy"), np.array(Payload(mark), dtype=object), allow_pickle=True)
    for strict in (False, True):
        with pytest.raises(InputError, match=r"asks for posix\.system: only NumPy arrays .* nothing was run"):
            build(settings_for(raw, strict=strict))
    assert not mark.exists()


@pytest.mark.parametrize("layout", ["h36m", "h36m_mks0601", "h36m_eth", "h36m_kf", "mpii", "mpii_hrnet", "voc"])
def test_a_folder_of_another_set_is_told_what_it_looks_like(layouts, studio, tmp_path, layout):
    raw = layouts.get(layout, studio / layout)
    source = "mpii" if layout.startswith("h36m") or layout == "voc" else "h36m"
    with pytest.raises(InputError, match=f"holds no known layout, but looks like {layout} "):
        build(settings_for(raw, source=source, out=tmp_path / "out"))


def test_the_folder_above_is_told_where_to_look(studio):
    with pytest.raises(InputError, match=rf"holds no known layout, but {studio}/h36m looks like h36m \(looked for"):
        find_reader(settings_for(studio))


def test_a_little_damage_is_listed_in_the_manifest_of_every_layout(layouts, tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "ALLOWED_SKIPS", 0.05)
    raw = shutil.copytree(layouts["h36m_mks0601"], tmp_path / "raw")
    first(raw, "images/*/*.jpg").unlink()
    manifest = build(settings_for(raw)).manifest
    (skip,) = manifest.skipped
    assert isinstance(skip, Skipped)
    assert (skip.frame, skip.reason, skip.samples) == (0, "No such file or directory", 1)
