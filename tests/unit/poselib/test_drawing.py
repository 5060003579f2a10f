import numpy as np
import pytest

from poselib.drawing import LEFT, RIGHT, TRUNK, bone_color, contact_sheet, draw_skeleton, plot_pose_3d
from poselib.skeleton import BONES, H36M_JOINTS

pytestmark = pytest.mark.unit

# Somebody who faces the camera: mm, x to the right of the picture, y down, z away.
POSE = np.array(
    [
        *[[0, 0, 0], [-130, 0, 0], [-140, 440, 20], [-150, 880, 40], [130, 0, 0], [150, 430, -40], [170, 850, -30]],
        *[[0, -240, 10], [0, -480, 20], [0, -570, -40], [0, -690, -20], [150, -470, 20], [380, -400, -30]],
        *[[560, -560, -80], [-150, -470, 20], [-250, -250, 60], [-300, -60, -60]],
    ],
    dtype=np.float64,
)
JOINTS_PX = POSE[:, :2] / 10 + 110
GREY = np.full((220, 220, 3), 128, np.uint8)


def where(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Pixels `n 2` (x, y) of about that colour."""
    return np.argwhere((np.abs(image.astype(int) - color) < 12).all(axis=-1))[:, ::-1]


def test_sides_have_their_own_colours() -> None:
    colors = {name: bone_color(joint) for joint, name in enumerate(H36M_JOINTS)}
    assert (colors["right_wrist"], colors["left_knee"], colors["head_top"]) == (RIGHT, LEFT, TRUNK)


def test_every_bone_lies_over_its_joints() -> None:
    before = GREY.copy()
    image = draw_skeleton(GREY, JOINTS_PX)
    np.testing.assert_array_equal(GREY, before)
    for parent, child in BONES:
        x, y = (JOINTS_PX[parent] * 0.6 + JOINTS_PX[child] * 0.4).astype(int)
        assert len(where(image[y - 1 : y + 2, x - 1 : x + 2], bone_color(child))) > 0
    assert (image == 128).all(axis=-1).mean() > 0.8


def test_lines_grow_with_the_picture() -> None:
    small = draw_skeleton(GREY, JOINTS_PX)
    large = draw_skeleton(np.full((880, 880, 3), 128, np.uint8), JOINTS_PX * 4)
    shares = [(image != 128).any(axis=-1).mean() for image in (small, large)]
    assert shares[1] == pytest.approx(shares[0], rel=0.3)


def test_joints_that_are_hidden_or_nowhere_are_left_out() -> None:
    none = draw_skeleton(GREY, JOINTS_PX, np.zeros(17, dtype=bool))
    np.testing.assert_array_equal(none, GREY)
    limbs = np.array([bone_color(joint) != LEFT for joint in range(17)])
    assert len(where(draw_skeleton(GREY, JOINTS_PX, limbs), LEFT)) == 0
    broken = JOINTS_PX.copy()
    broken[~limbs] = [[np.nan, 1.0], [1e30, 1.0], [1.0, -np.inf]] * 2
    np.testing.assert_array_equal(draw_skeleton(GREY, broken), draw_skeleton(GREY, JOINTS_PX, limbs))


def test_a_pose_in_space_stands_upright_and_is_seen_from_the_camera() -> None:
    image = plot_pose_3d(POSE + np.array([200.0, 100.0, 4500.0]), size_px=300, azimuth_deg=-90.0, elevation_deg=0.0)
    assert image.shape == (300, 300, 3)
    trunk, left, right = (where(image, color).mean(axis=0) for color in (TRUNK, LEFT, RIGHT))
    assert right[0] < trunk[0] < left[0]
    assert trunk[1] < min(left[1], right[1])


def test_the_root_does_not_matter_and_the_truth_is_grey() -> None:
    alone = plot_pose_3d(POSE)
    np.testing.assert_array_equal(alone, plot_pose_3d(POSE + np.array([0.0, 0.0, 4096.0])))
    other = POSE * [1.0, 1.0, -1.0] + [0.0, 0.0, 30.0]
    both = plot_pose_3d(POSE, other, title="51.2 mm")
    assert len(where(both, (115, 115, 115))) > len(where(alone, (115, 115, 115))) + 50


def test_contact_sheet_holds_every_picture() -> None:
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    images = [np.full((40, 30 + 10 * i, 3), color, np.uint8) for i, color in enumerate(colors)]
    sheet = contact_sheet(images, columns=2)
    places = [where(sheet, color) for color in colors]
    assert [len(place) for place in places] == [40 * 30, 40 * 40, 40 * 50]
    assert places[0][:, 1].max() == places[1][:, 1].max() < places[2][:, 1].min()
    captioned = contact_sheet(images, columns=2, captions=["one", "a far longer caption than fits", "three"])
    assert captioned.shape[0] > sheet.shape[0]
    assert len(where(captioned, (20, 20, 20))) > 0


@pytest.mark.parametrize(("count", "columns", "captions"), [(0, 1, []), (1, 0, []), (2, 1, ["one"])])
def test_contact_sheet_refuses_what_makes_no_sheet(count: int, columns: int, captions: list[str]) -> None:
    with pytest.raises(ValueError, match="make no sheet"):
        contact_sheet([GREY] * count, columns, captions)
