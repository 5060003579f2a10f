"""Videos in and out, and what inputs a command line names."""

from fractions import Fraction

import av
import numpy as np
import pytest

from cluster.predict.inputs import count_items, find_inputs, read_items
from cluster.predict.video import count_frames, frame_rate, open_writer, read_frames
from poselib.errors import InputError

pytestmark = pytest.mark.unit

LIMIT = 64_000_000


def frame(number: int, height: int = 49, width: int = 65) -> np.ndarray:
    return np.full((height, width, 3), 10 + 20 * number, np.uint8)


@pytest.fixture
def clip(tmp_path):
    with open_writer(tmp_path / "clip.mp4", Fraction(30000, 1001)) as writer:
        for number in range(10):
            writer.add(frame(number))
    return tmp_path / "clip.mp4"


def test_a_video_comes_back_as_it_was_written(clip):
    frames = list(read_frames(clip, "clip", 1, LIMIT))
    assert [number for number, _ in frames] == list(range(10))
    for number, pixels in frames:
        assert pixels.shape == (48, 64, 3)  # an odd row and column are cut off
        assert abs(pixels.mean() - frame(number).mean()) < 3
    assert count_frames(clip, 1) == 10
    assert frame_rate(clip, 1) == Fraction(30000, 1001)


def test_each_third_frame(clip):
    assert [number for number, _ in read_frames(clip, "clip", 3, LIMIT)] == [0, 3, 6, 9]
    assert count_frames(clip, 3) == 4
    assert frame_rate(clip, 3) == Fraction(10000, 1001)


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def fail() -> None:
        with open_writer(tmp_path / "x.mp4", Fraction(25)) as writer:
            writer.add(frame(0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_bad_videos_are_one_line(clip, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video")
    with open_writer(tmp_path / "none.mp4", Fraction(25)):
        pass
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    for name in ("empty", "text", "none", "sound", "nowhere"):
        with pytest.raises(InputError, match=f"^{name}: ") as caught:
            list(read_frames(tmp_path / f"{name}.mp4", name, 1, LIMIT))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="more than max_pixels allows"):
        list(read_frames(clip, "clip", 1, 100))


def test_a_video_is_turned_as_it_asks_for(tmp_path):
    upright = np.full((48, 64, 3), 20, np.uint8)
    upright[:24] = 220  # bright above
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 64, "yuv420p"
        stream.set_display_rotation(-90)  # to be shown turned clockwise, so it is stored turned the other way
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(upright)), "rgb24")))
        container.mux(stream.encode())
    ((_, shown),) = read_frames(tmp_path / "x.mp4", "x", 1, LIMIT)
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 5


def write_noise(path, codec: str, frames: int = 60, **options) -> None:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            noise = rng.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("x.mkv", "mpeg4", {}),
        ("x.avi", "mpeg4", {}),
        ("x.webm", "libvpx", {}),
        ("x.mov", "mpeg4", {"movflags": "faststart"}),
        ("x.mp4", "libx264", {"movflags": "faststart"}),
    ],
)
def test_a_video_that_is_cut_short_gives_what_it_has_then_says_so(name, codec, options, tmp_path):
    path = tmp_path / name
    write_noise(path, codec, **options)
    inputs = find_inputs([str(path)], tmp_path / "out")[0]
    assert [item.problem for item in read_items(inputs, 1, LIMIT)] == [""] * 60
    assert [item.problem for item in read_items(inputs, 7, LIMIT)] == [""] * 9
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    *frames, last = read_items(inputs, 1, LIMIT)
    assert 15 < len(frames) < 35
    assert all(item.pixels is not None and not item.problem for item in frames)
    assert last.pixels is None
    assert last.problem.startswith(f"{path}: ")
    if name != "x.mp4":  # the decoder stumbles over the last frame's rest before anybody asks
        assert "is cut short: it should take 2.4 s, and ends after " in last.problem


def test_whole_videos_of_every_kind_are_whole(clip, tmp_path):
    write_noise(tmp_path / "x.mpg", "mpeg2video")
    write_noise(tmp_path / "one.mkv", "mpeg4", frames=1)
    assert len(list(read_frames(tmp_path / "x.mpg", "x", 1, LIMIT))) == 60
    assert len(list(read_frames(tmp_path / "one.mkv", "one", 1, LIMIT))) == 1
    # Sound that goes on after the pictures.
    with av.open(str(tmp_path / "long.mp4"), "w") as container:
        video, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=44100)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame(number)[:48, :64], "rgb24")))
        container.mux(video.encode())
        for _ in range(100):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate = 44100
            container.mux(sound.encode(silence))
        container.mux(sound.encode())
    assert len(list(read_frames(tmp_path / "long.mp4", "long", 1, LIMIT))) == 10


@pytest.mark.parametrize(("width", "height"), [(64, 1), (1, 48)])
def test_frames_that_hold_nobody_are_one_line(width, height, tmp_path):
    with av.open(str(tmp_path / "x.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), "rgb24")))
        container.mux(stream.encode())
    with pytest.raises(InputError, match=f"x: frames are {width} x {height} px; they must be at least"):
        list(read_frames(tmp_path / "x.mov", "x", 1, LIMIT))


def names(words, made) -> list[str]:
    return [one.name for one in find_inputs([str(word) for word in words], made)[0]]


@pytest.fixture
def folder(tmp_path, clip):
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.jpg", "sub/c.webp", "sub/d.jfif", "overlays/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_folders_are_searched_but_for_hidden_files_and_the_overlays_that_are_written(folder):
    found, problems = find_inputs([str(folder)], folder / "overlays")
    assert [one.name for one in found] == ["a.png", "b.JPG", "clip.mp4", "sub/c.webp", "sub/d.jfif"]
    assert [one.is_video for one in found] == [False, False, True, False, False]
    assert not problems
    assert count_items(found, 5) == 4 + 2
    assert names([folder / "sub"], folder / "overlays") == ["c.webp", "d.jfif"]
    assert len(names([folder], folder / "elsewhere" / "overlays")) == 6


@pytest.mark.parametrize("word", ["overlays", "overlays/a.jpg"])
def test_overlays_that_would_be_overwritten_are_no_input(folder, word):
    found, (problem,) = find_inputs([str(folder / word)], folder / "overlays")
    assert not found
    assert "would be overwritten; give another --out" in problem


def test_of_several_words_a_name_tells_its_folder(folder):
    (folder / "other").mkdir()
    (folder / "other" / "c.webp").touch()
    words = [folder / "sub", folder / "other", folder / "a.png"]
    assert names(words, folder / "out") == [
        *(f"{folder}/sub/c.webp", f"{folder}/sub/d.jfif", f"{folder}/other/c.webp", f"{folder}/a.png"),
    ]


def test_pictures_of_phones_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "IMG_1.HEIC").touch()
    for word in (tmp_path, tmp_path / "IMG_1.HEIC"):
        found, (problem,) = find_inputs([str(word)], tmp_path / "out")
        assert not found
        assert problem.endswith("IMG_1.HEIC: is HEIC, which is not read; save it as JPEG or PNG")


def test_a_terminal_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    found, (problem,) = find_inputs(["-"], tmp_path)
    assert not found
    assert problem == "-: nothing is piped in; give a picture by `< photo.jpg`"


@pytest.mark.parametrize(
    ("word", "said"), [("https://a.b/c.jpg", "is a URL"), ("nowhere.jpg", "does not exist"), (".", "holds no pictures")]
)
def test_words_that_name_nothing_are_one_line(word, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, problems = find_inputs([word, "-"], tmp_path / "out")
    assert [one.name for one in found] == ["-"]
    assert len(problems) == 1
    assert problems[0].startswith(f"{word}: ")
    assert said in problems[0]
