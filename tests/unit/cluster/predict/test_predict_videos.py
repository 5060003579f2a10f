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


def test_a_video_that_is_cut_short_gives_what_it_has_then_says_so(clip, tmp_path):
    long = tmp_path / "long.mkv"
    rng = np.random.default_rng(0)
    with av.open(str(long), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(30):
            noise = rng.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "rgb24")))
        container.mux(stream.encode())
    content = long.read_bytes()
    long.write_bytes(content[: len(content) // 2])
    found, inputs = [], find_inputs([str(long)], tmp_path / "out")[0]
    for item in read_items(inputs, 1, LIMIT):
        found.append(item)
    assert 5 < sum(item.pixels is not None for item in found) < 30


def test_folders_are_searched_but_for_hidden_files_and_earlier_outputs(tmp_path, clip):
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.jpg", "sub/c.webp", "out/overlays/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found, problems = find_inputs([str(tmp_path)], tmp_path / "out")
    assert [one.name for one in found] == ["a.png", "b.JPG", "clip.mp4", "sub/c.webp"]
    assert [one.is_video for one in found] == [False, False, True, False]
    assert not problems
    assert count_items(found, 5) == 3 + 2


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
