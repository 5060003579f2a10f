"""A video is decoded once and in order, only wanted frames are converted, damage moves no picture to another pose."""

from typing import ClassVar

import av
import numpy as np
import pytest

from shards.readers import video

pytestmark = pytest.mark.unit

FRAMES = 24


@pytest.fixture
def film(tmp_path, raw_writers):
    """Frame n is n times 10 bright, with noise that takes bytes."""
    rng = np.random.default_rng(0)
    frames = [np.clip(rng.normal(10 * n, 6, (96, 96, 3)), 0, 255).astype(np.uint8) for n in range(FRAMES)]
    raw_writers.write_video(tmp_path / "film.mp4", frames)
    return tmp_path / "film.mp4"


class Watched:
    """A converter that notes what it converts; PyAV's own takes no subclass."""

    converted: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.own = av.video.reformatter.VideoReformatter()

    def reformat(self, frame, **how):
        self.converted.append(frame.pts)
        return self.own.reformat(frame, **how)


def test_decoded_once_in_order_and_only_wanted_frames_are_converted(film, monkeypatch):
    decoded, opened = [], []
    numbered, opening = video._numbered, video.av.open

    def watch(*arguments):
        for index, frame in numbered(*arguments):
            decoded.append(index)
            yield index, frame

    Watched.converted.clear()
    monkeypatch.setattr(video, "_numbered", watch)
    monkeypatch.setattr(video, "VideoReformatter", Watched)
    monkeypatch.setattr(video.av, "open", lambda *a, **k: opened.append(a) or opening(*a, **k))
    frames = dict(video.decode(film, FRAMES, [0, 5, 10]))
    assert list(frames) == [0, 5, 10]
    assert [round(float(frames[n].mean()) / 10) for n in frames] == [0, 5, 10]
    assert decoded == list(range(len(decoded)))
    assert 11 <= len(decoded) < FRAMES
    assert len(Watched.converted) == 3
    assert len(opened) == 1


def test_damage_inside_never_moves_a_picture_to_another_pose(film):
    with av.open(str(film)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    whole = film.read_bytes()
    sound = dict(video.decode(film, FRAMES, list(range(FRAMES))))
    named = 0
    for start, size in packets[1::3]:
        torn = bytearray(whole)
        torn[start + size // 4 : start + size // 2] = bytes(size // 2 - size // 4)
        film.write_bytes(torn)
        found: dict[int, np.ndarray | None] = {}
        try:
            for index, frame in video.decode(film, FRAMES, list(range(FRAMES))):
                found[index] = frame
        except (av.FFmpegError, ValueError):
            pass
        kept = {index: frame for index, frame in found.items() if frame is not None}
        named += len(kept) < FRAMES
        for index, frame in kept.items():
            assert abs(float(frame.mean()) - float(sound[index].mean())) < 5, index
    assert named > 0


def test_a_video_that_lost_frames_is_cut_where_they_are_missing(film, tmp_path):
    gap = tmp_path / "gap.mp4"
    with av.open(str(film)) as container, av.open(str(gap), "w") as out:
        source = container.streams.video[0]
        track = out.add_stream_from_template(source)
        for packet in container.demux(source):
            if packet.size and not 12 <= packet.pts * packet.time_base * 50 < 18:  # a whole group of pictures
                packet.stream = track
                out.mux(packet)
    found = []
    with pytest.raises(ValueError, match="frames are missing before frame 12, and the pose file has more"):
        found.extend(index for index, _ in video.decode(gap, FRAMES, list(range(FRAMES))))
    seen = [index for index, _ in video.decode(gap, 18, list(range(12)))]
    assert seen == list(range(12))
