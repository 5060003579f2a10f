"""Boxes from files, options and detectors; those that cannot be used are named."""

import json

import numpy as np
import pytest

from cluster.predict.boxes import BoxFinder, read_boxes
from poselib.errors import InputError

pytestmark = pytest.mark.unit

PICTURE = np.zeros((100, 200, 3), np.uint8)


def test_without_anything_the_whole_picture_is_the_box():
    found = BoxFinder().find(PICTURE, "a.jpg")
    assert found.boxes.tolist() == [[0, 0, 200, 100]]
    assert found.origin == "whole picture"


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([200, 0, 50, 50], "lies outside the picture of 200 x 100 px"),
        ([-60, 10, 50, 50], "lies outside"),
        ([10, 10, 50, -5], "too small"),
        ([10, 10, 3, 50], "too small"),
        ([10, 10, np.nan, 50], "too small"),
        ([0, 0, 9e9, 50], "ten times as large"),
    ],
)
def test_bad_boxes_are_named_and_the_others_go_on(box, said):
    found = BoxFinder(detector=lambda _: np.array([box, [10.0, 20.0, 50.0, 60.0]])).find(PICTURE, "a.jpg")
    assert found.boxes.tolist() == [[10, 20, 50, 60]]
    assert len(found.problems) == 1
    assert found.problems[0].startswith("a.jpg: box")
    assert said in found.problems[0]


def test_a_box_that_reaches_over_the_border_is_fine():
    found = BoxFinder(box=np.array([-20.0, -20.0, 60.0, 60.0])).find(PICTURE, "a.jpg")
    assert found.boxes.tolist() == [[-20, -20, 60, 60]]
    assert not found.problems


def test_a_small_crop_of_a_box_mostly_outside_shows_nothing():
    box = np.array([-49.0, 10.0, 50.0, 50.0])
    assert len(BoxFinder(box=box).find(PICTURE, "a.jpg").boxes) == 1
    found = BoxFinder(box=box, scale=0.5).find(PICTURE, "a.jpg")
    assert not len(found.boxes)
    assert found.problems[0].endswith("at box_scale 0.5, lies outside the picture of 200 x 100 px")


def test_the_last_folders_of_a_name_will_do_and_other_names_are_told():
    table = {name: np.array([[1.0, 2.0, 30.0, 40.0]]) for name in ("b/a.jpg", "clip.mp4#3", "x.jpg", "no.mp4#1")}
    finder = BoxFinder(table=table)
    assert len(finder.find(PICTURE, "one/b/a.jpg").boxes) == 1
    assert not len(finder.find(PICTURE, "one/c/a.jpg").boxes)
    assert finder.unused(["one/b/a.jpg", "one/clip.mp4"]) == ["x.jpg", "no.mp4#1"]
    assert BoxFinder().unused(["a.jpg"]) == []


def test_files_of_boxes_as_json_and_csv_mean_the_same(tmp_path):
    (tmp_path / "b.json").write_text(
        json.dumps({"a.jpg": [[1, 2, 30, 40], [5, 6, 70, 80]], "clip.mp4#7": [9, 9, 20, 20]})
    )
    (tmp_path / "b.csv").write_text("name,frame,x,y,w,h\na.jpg,,1,2,30,40\na.jpg,,5,6,70,80\nclip.mp4,7,9,9,20,20\n")
    tables = [read_boxes(tmp_path / name) for name in ("b.json", "b.csv")]
    assert tables[0].keys() == tables[1].keys()
    for name, boxes in tables[0].items():
        np.testing.assert_array_equal(boxes, tables[1][name])
    finder = BoxFinder(table=tables[0])
    assert len(finder.find(PICTURE, "folder/a.jpg").boxes) == 2
    assert "has none for it" in finder.find(PICTURE, "other.jpg").problems[0]
    assert finder.find(PICTURE, "clip.mp4", 7).boxes.tolist() == [[9, 9, 20, 20]]
    nobody = finder.find(PICTURE, "clip.mp4", 8)
    assert not len(nobody.boxes)
    assert not nobody.problems


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("b.json", "[1, 2]", "must be"),
        ("b.json", "{", "neither JSON nor"),
        ("b.json", '{"a.jpg": [[1, 2, 3]]}', "b.json: a.jpg: must be a list of boxes"),
        ("b.json", '{"a.jpg": [[1, 2, 3, "x"]]}', "a.jpg: must be"),
        ("b.json", '{"a.jpg": [[1, 2, 3, NaN]]}', "a.jpg: must be"),
        ("b.json", f'{{"a.jpg": [[1, 2, 3, 1{"0" * 400}]]}}', "a.jpg: must be"),
        ("b.csv", "a.jpg,1,2,3,4\n", "the first line must name"),
        ("b.csv", "name,x,y,w,h\na.jpg,1,2,3,wide\n", "line 2: x, y, w, h must be numbers"),
        ("b.csv", "name,x,y,w,h\na.jpg,1,2\n", "line 2"),
    ],
)
def test_broken_files_of_boxes_are_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        read_boxes(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        read_boxes(tmp_path / "nowhere.json")
