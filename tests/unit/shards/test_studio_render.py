from pathlib import Path

import numpy as np
import pytest

from poselib.camera import project, world_to_camera
from poselib.skeleton import H36M_JOINTS
from shards.settings import StudioSettings
from shards.studio.body import BONES, load_bodies
from shards.studio.cameras import StudioCamera, euler_angles, human36m_cameras, look_at, rays, rotation_matrix
from shards.studio.clothes import draw_dress
from shards.studio.human36m import SUBJECTS, filmed_subaction, sequence_name
from shards.studio.motion import ACTIONS, draw_clip
from shards.studio.raycast import FLOOR, ROOM_FACES
from shards.studio.render import Backdrop, draw_person
from shards.studio.scene import Prop, box, draw_backdrop, draw_material
from shards.studio.staging import Take, stage

pytestmark = pytest.mark.unit

JOINT = {name: number for number, name in enumerate(H36M_JOINTS)}
FILMED = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")


def draw_take(subject: str, action: str, frames: int = 2) -> Take:
    rng = np.random.default_rng([8, ACTIONS.index(action)])
    body = load_bodies()[subject]
    return stage(rng, body, draw_dress(rng, body, rng), draw_clip(rng, action, frames))


def empty_room(camera: StudioCamera) -> Backdrop:
    shape = (camera.height, camera.width)
    far = np.full(shape, 1e-9, np.float32)
    light = np.array([0.0, 0.6, 0.8])
    return Backdrop(np.full((*shape, 3), 0.5, np.float32), far, np.full(shape, FLOOR, np.int16), light, 0.5)


def silhouette(take: Take, camera: StudioCamera, frame: int) -> np.ndarray:
    room = empty_room(camera)
    return draw_person(room.picture.copy(), room, camera, take.dress, take.body.faces, take.vertices[frame])


@pytest.mark.parametrize("action", ACTIONS)
def test_joints_lie_on_the_body_from_every_side(action: str) -> None:
    take = draw_take(FILMED[ACTIONS.index(action) % len(FILMED)], action)
    for camera in human36m_cameras(0, 1, 400, True):
        for frame in range(len(take.vertices)):
            coverage = silhouette(take, camera, frame)
            columns, rows = np.floor(camera.see(take.landmarks[frame, :17])[0]).astype(int).T
            assert (coverage[rows, columns] > 0).all(), (action, camera.name)
            assert 0.003 < (coverage > 0.5).mean() < 0.2


@pytest.mark.parametrize("subject", FILMED)
def test_the_canonical_pose_faces_forwards_with_left_at_the_left(subject: str) -> None:
    body = load_bodies()[subject]
    vertices, landmarks = body.pose(np.tile(np.eye(3), (1, len(BONES), 1, 1)))
    joints = landmarks[0]
    for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
        assert joints[JOINT[f"left_{part}"], 0] > joints[JOINT[f"right_{part}"], 0] + 50
    toe_base, toe_tip, nose, pelvis = joints[17], joints[18], joints[JOINT["neck"]], joints[0]
    assert toe_tip[1] < toe_base[1] - 10
    assert nose[1] < pelvis[1]
    assert joints[JOINT["left_wrist"], 2] < joints[JOINT["left_elbow"], 2] - 150
    assert 1500 < np.ptp(vertices[0, :, 2]) < 1950


def test_posing_keeps_bones_as_long_as_they_are() -> None:
    take = draw_take("S7", "Directions", frames=5)
    for first, second in ((1, 2), (2, 3), (4, 5), (5, 6), (11, 12), (12, 13), (14, 15), (15, 16)):
        lengths = np.linalg.norm(take.landmarks[:, first] - take.landmarks[:, second], axis=1)
        rest = np.linalg.norm(take.body.landmarks[first] - take.body.landmarks[second])
        np.testing.assert_allclose(lengths, rest, rtol=1e-9)


@pytest.mark.parametrize("action", ["Walking", "Sitting", "SittingDown", "Photo"])
def test_people_touch_the_floor_and_stay_in_the_middle(action: str) -> None:
    take = draw_take("S6", action, frames=24)
    np.testing.assert_allclose(take.vertices[:, :, 2].min(axis=1), 0, atol=1e-6)
    assert np.abs(take.landmarks[:, 0, :2]).max() < 1900


def test_sitters_have_a_seat_just_below_them() -> None:
    take = draw_take("S9", "Sitting", frames=6)
    (seat,) = take.props
    top = seat.boxes[0, 2] + seat.boxes[0, 5]
    hips = take.landmarks[:, [1, 4], 2]
    assert (hips - top > 30).all()
    assert (hips - top < 220).all()


def test_motion_moves_and_actions_differ() -> None:
    poses = {}
    for action in ACTIONS:
        take = draw_take("S8", action, frames=8)
        relative = take.landmarks[:, :17] - take.landmarks[:, :1]
        assert relative.std(axis=0).max() > 10, action
        poses[action] = relative.mean(axis=0)
    assert len({tuple(pose.ravel().round()) for pose in poses.values()}) == len(ACTIONS)


def test_the_background_is_seen_through_the_lens() -> None:
    camera = human36m_cameras(0, 5, 500, True)[0]
    rng = np.random.default_rng(2)
    aside = look_at(camera.position, np.array([0, 0, 900.0]))[0]
    centre = 1500 * aside + [0, 0, 1900]
    ball = Prop(box(centre, [25, 25, 25], 0.3), draw_material(rng))
    backdrop = draw_backdrop(rng, camera, (ball,))
    rows, columns = np.nonzero(backdrop.surface == ROOM_FACES)
    found = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
    local = world_to_camera(centre[None], camera.rotation, camera.position)
    np.testing.assert_allclose(found, project(local, camera.intrinsics, camera.distortion)[0], atol=0.6)
    assert np.linalg.norm(found - project(local, camera.intrinsics)[0]) > 1.5
    depth = 1 / backdrop.inverse[rows, columns]
    assert np.abs(depth - local[0, 2]).max() < 60


def test_the_lens_can_be_switched_off() -> None:
    straight = human36m_cameras(0, 1, 300, False)
    bent = human36m_cameras(0, 1, 300, True)
    for plain, real in zip(straight, bent, strict=True):
        assert not plain.distortion.any()
        assert real.distortion.all()
        np.testing.assert_array_equal(plain.angles, real.angles)
        assert np.abs(rays(plain) - rays(real)).max() > 0.005


def test_angles_and_rotations_are_inverse_and_cameras_upright() -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform([-3, -1.5, -3], [3, 1.5, 3], (50, 3))
    for triple in angles:
        rotation = rotation_matrix(triple)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(euler_angles(rotation), triple, atol=1e-9)
    for camera in human36m_cameras(1, 11, 1000, True):
        assert camera.rotation[1] @ [0, 0, 1] < -0.9
        assert 5000 < np.linalg.norm(camera.position) < 6200
        assert (camera.width, camera.height) in {(1000, 1002), (1000, 1000)}


def test_a_shadow_falls_on_the_floor_alone() -> None:
    take, camera = draw_take("S5", "Posing"), human36m_cameras(0, 1, 300, True)[2]
    room = empty_room(camera)
    picture = room.picture.copy()
    coverage = draw_person(picture, room, camera, take.dress, take.body.faces, take.vertices[0])
    assert ((picture[..., 0] < 0.45) & (coverage == 0)).sum() > 50
    room.surface[:] = 1
    picture = room.picture.copy()
    draw_person(picture, room, camera, take.dress, take.body.faces, take.vertices[0])
    np.testing.assert_array_equal(picture[coverage == 0], room.picture[coverage == 0])


def test_furniture_hides_people() -> None:
    take, camera = draw_take("S5", "Posing"), human36m_cameras(0, 1, 300, True)[2]
    room = empty_room(camera)
    room.inverse[:] = 1 / 1000
    assert not draw_person(room.picture.copy(), room, camera, take.dress, take.body.faces, take.vertices[0]).any()


@pytest.mark.parametrize("subject", FILMED)
def test_filmed_sequences_are_real_and_without_known_faults(subject: str) -> None:
    faulty = {("S9", "Greeting"), ("S9", "SittingDown 1"), ("S9", "Waiting 1"), ("S11", "Directions")}
    names = [sequence_name(subject, action, filmed_subaction(subject, action)) for action in ACTIONS]
    assert len(set(names)) == 15
    assert not faulty & {(subject, name) for name in names}
    assert any(name[-1].isdigit() for name in names)
    assert subject in SUBJECTS


def test_settings_know_the_same_subjects_as_the_bodies() -> None:
    assert set(StudioSettings(out=Path("unused")).subjects) == set(FILMED) <= set(load_bodies())
