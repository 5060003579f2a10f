"""`pose predict` on pictures good and bad, a video and the standard input, by a small run."""

import io
import json
import struct
import zlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import pose
from cluster.predict.video import open_writer, read_frames
from cluster.weights import SavedModel, save_model
from poselib.model.network import PoseNetwork
from poselib.settings import ModelSettings
from poselib.skeleton import H36M_JOINTS

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    network = PoseNetwork(ModelSettings("resnet10", 4, 64, 64, 8, 2000.0, (1, 2), 0, 8, 2)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    save_model(folder / "model.safetensors", SavedModel(network, 7, 99.0, np.zeros((17, 3))))
    (folder / "run.yaml").write_text("crop: {aspect: stretch}\nsettings_of_another_time: 1\n")
    (folder / "score.json").write_text('{"protocol": {"box": "root2000"}}')
    return folder


def picture(height: int = 90, width: int = 120) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A folder of pictures and videos, half of them bad; the current one is beside it."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    good = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = 6
    good.save(folder / "turned.jpg", exif=exif)
    good.save(folder / "sub" / "turned.jpg")
    good.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(picture()[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("no picture")
    head = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    (folder / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    )
    with open_writer(folder / "clip.mp4", Fraction(25)) as writer:
        for _ in range(5):
            writer.add(picture())
    with open_writer(folder / "still.mp4", Fraction(25)):
        pass
    monkeypatch.chdir(tmp_path)
    return folder


def read(folder) -> dict:
    return json.loads((folder / "poses.json").read_text())


def test_the_good_ones_go_on_and_the_bad_ones_are_named(run, inputs, tmp_path, capsys):
    words = ["predict", "in", "https://a.b/c.jpg", "--run", str(run), "--every", "2", "--batch", "3"]
    assert pose.main(words) == 3
    shown = capsys.readouterr()
    out = read(tmp_path / "predictions")
    found = {(one["picture"], one["frame"]): one for one in out["pictures"]}
    frames = [("in/clip.mp4", number) for number in (0, 2, 4)]
    pictures = [(f"in/{name}", None) for name in ("cmyk.jpg", "sixteen.png", "sub/turned.jpg", "turned.jpg")]
    assert list(found) == frames + pictures
    assert (found["in/turned.jpg", None]["width"], found["in/turned.jpg", None]["height"]) == (90, 120)
    for bad in ("in/empty.jpg", "in/text.png", "in/huge.png", "in/still.mp4", "https://a.b/c.jpg"):
        assert [line for line in out["left_out"] if line.startswith(f"{bad}: ")]
        assert f"left out: {bad}: " in shown.err
    assert len(out["left_out"]) == 5
    assert "pose predict: 5 left out" in shown.err
    assert "Traceback" not in shown.err
    assert "7 people in 7 pictures: predictions/poses.json" in shown.out
    assert "root depths are estimates" in shown.out
    assert "55 degrees" in shown.out
    assert "2000 mm about the pelvis" in shown.out
    overlays = tmp_path / "predictions" / "overlays"
    assert sorted(path.name for path in overlays.iterdir()) == [
        *("clip.mp4", "cmyk.jpg", "sixteen.png.jpg", "turned-2.jpg", "turned.jpg"),
    ]
    drawn = [pixels for _, pixels in read_frames(overlays / "clip.mp4", "clip", 1, 10**6)]
    assert len(drawn) == 3
    assert np.abs(drawn[0].astype(int) - picture()).mean() > 1


def test_what_the_file_says_of_a_person(run, inputs, tmp_path):
    words = ["in/sub/turned.jpg", "--run", str(run), "--box", "[10, 20, 60, 50]", "--root_depth_mm", "3000"]
    assert pose.main(["predict", *words, "--focal_px", "150", "--out", "o", "--overlays", "false"]) == 0
    out = read(tmp_path / "o")
    assert out["joints"] == list(H36M_JOINTS)
    assert out["model"]["step"] == 7
    assert out["model"]["aspect"] == "stretch"
    assert out["left_out"] == []
    ((one,),) = [one["people"] for one in out["pictures"]]
    assert one["box"] == [10, 20, 60, 50]
    assert (one["box_from"], one["root_depth_from"], one["root_depth_mm"]) == ("option", "option", 3000)
    px, mm, camera = (np.array(one[key]) for key in ("joints_px", "joints_mm", "camera_mm"))
    assert px.shape == (17, 2)
    np.testing.assert_allclose(camera - camera[0], mm, atol=0.02)
    # The camera's picture of the absolute joints is where they were seen.
    np.testing.assert_allclose(camera[:, :2] / camera[:, 2:] * 150 + [60, 45], px, atol=0.02)
    assert one["joints_mm"][0] == [0, 0, 0]
    assert all(value > 0 for value in one["spread_mm"])
    assert all(0 <= value <= 1 for value in one["confidence"])
    assert not (tmp_path / "o" / "overlays").exists()


def test_a_picture_from_the_standard_input(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, stored = cv2.imencode(".png", picture())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stored.tobytes())))
    assert pose.main(["predict", "-", "--run", str(run / "model.safetensors"), "--flip_test", "true"]) == 0
    assert read(tmp_path / "predictions")["pictures"][0]["picture"] == "-"
    assert (tmp_path / "predictions" / "overlays" / "stdin.jpg").is_file()


def test_a_picture_wider_than_opencv_and_jpeg_take(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wide = np.zeros((90, 66_000, 3), np.uint8)
    wide[:, 60_000:60_120] = picture()
    cv2.imwrite("wide.png", wide)
    cv2.imwrite("plain.png", picture())
    words = ["--run", str(run), "--box", "[60010, 20, 60, 50]", "--focal_px", "150"]
    assert pose.main(["predict", "wide.png", *words]) == 0
    assert cv2.imread("predictions/overlays/wide.png.jpg").shape[1] == 65_000
    (far,) = read(tmp_path / "predictions")["pictures"][0]["people"]
    words[3] = "[10, 20, 60, 50]"
    assert pose.main(["predict", "plain.png", *words]) == 0
    (near,) = read(tmp_path / "predictions")["pictures"][0]["people"]
    np.testing.assert_allclose(np.array(far["joints_px"]) - [60_000, 0], near["joints_px"], atol=0.02)


def test_a_box_outside_and_a_url_leave_the_others_alone(run, inputs, tmp_path, capsys):
    words = ["in/cmyk.jpg", "https://a.b/c.jpg", "in/sixteen.png", "in/empty.jpg", "--run", str(run)]
    assert pose.main(["predict", *words, "--box", "[900, 20, 60, 50]"]) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert [line.split(": ")[1] for line in lines] == [
        *("https://a.b/c.jpg", "in/cmyk.jpg", "in/sixteen.png", "in/empty.jpg"),
    ]
    assert all("lies outside the picture of 120 x 90 px" in lines[place] for place in (1, 2))
    assert len(read(tmp_path / "predictions")["pictures"]) == 2


def test_boxes_from_a_file(run, inputs, tmp_path, capsys):
    (tmp_path / "boxes.csv").write_text(
        "name,frame,x,y,w,h\nturned.jpg,,5,5,40,60\nturned.jpg,,900,5,40,60\nclip.mp4,1,5,5,40,60\n"
    )
    words = ["in/turned.jpg", "in/clip.mp4", "in/cmyk.jpg", "--run", str(run), "--boxes", "boxes.csv"]
    assert pose.main(["predict", *words]) == 3
    out = read(tmp_path / "predictions")
    assert [len(one["people"]) for one in out["pictures"]] == [1, 0, 1, 0, 0, 0, 0]
    assert [line.split(":")[0] for line in out["left_out"]] == ["in/turned.jpg", "in/cmyk.jpg"]


def test_odd_inputs_are_named_and_the_others_go_on(run, inputs, tmp_path, capsys):
    """A folder that is the output's too; a crop beside its picture; a frame one px high; a box of no input."""
    for name in ("empty.jpg", "text.png", "huge.png", "still.mp4", "cmyk.jpg", "turned.jpg", "sub/turned.jpg"):
        (inputs / name).unlink()
    cv2.imwrite(str(inputs / "large.png"), picture(900, 1200))
    with av.open(str(inputs / "line.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 1, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((1, 64, 3), np.uint8), "rgb24")))
        container.mux(stream.encode())
    boxes = {"clip.mp4": [5, 5, 40, 60], "sixteen.png": [5, 5, 40, 60], "large.png": [-690, 100, 700, 700], "x.jpg": []}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    words = ["predict", "in", "--run", str(run), "--out", "in", "--boxes", "boxes.json", "--box_scale", "0.5"]
    for _ in range(2):  # the second time, the first one's overlays lie in the folder
        assert pose.main(words) == 3
        out, shown = read(inputs), capsys.readouterr().err
        assert [(one["picture"], len(one["people"])) for one in out["pictures"]] == [
            *([("clip.mp4", 1)] * 5),
            ("large.png", 0),
            ("sixteen.png", 1),
        ]
        assert [line.split(": ")[0] for line in out["left_out"]] == ["large.png", "line.mov"]
        assert "boxes.json: no input is called x.jpg" in shown


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["a.jpg"], 2, "run must be given"),
        (["--run", "x"], 2, "inputs must name"),
        (["a.jpg", "--run", "nowhere"], 1, "nowhere is no run"),
        (["a.jpg", "--run", "x.safetensors"], 1, "x.safetensors does not exist"),
        (["a.jpg", "--run", "RUN", "--boxes", "nowhere.csv"], 1, "nowhere.csv: cannot be read"),
        (["a.jpg", "--run", "RUN", "--box", "[1,2,3]"], 2, "box"),
        (["a.jpg", "--run", "RUN", "--max_pixels", "999999999"], 2, "max_pixels must lie in"),
        (["a.jpg", "--run", "RUN"], 3, "1 left out"),
    ],
)
def test_mistakes_are_one_line(words, code, line, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert pose.main(["predict", *(str(run) if word == "RUN" else word for word in words)]) == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("pose predict: ")
    assert line in last


def test_a_stop_halfway_leaves_what_was_there(run, inputs, tmp_path, monkeypatch):
    assert pose.main(["predict", "in/cmyk.jpg", "--run", str(run)]) == 0
    before = (tmp_path / "predictions" / "poses.json").read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cluster.predict.poses.Predictor.answer", stop)
    assert pose.main(["predict", "in/turned.jpg", "--run", str(run)]) == 130
    assert (tmp_path / "predictions" / "poses.json").read_bytes() == before
    assert not list((tmp_path / "predictions").glob(".*"))
