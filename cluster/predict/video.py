"""Videos in and out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np

from poselib.errors import InputError
from shards.atomic import written_whole
from shards.crop import SMALLEST_BOX_PX

SUFFIXES: Final = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"})
_CODECS: Final = ("libx264", "mpeg4")
_STILL_RATE: Final = Fraction(25)
_WHOLE: Final = 0.98
_FEW: Final = 5
"""A video that lacks this share of its time and so many frames is whole: containers are not exact."""


def read_frames(path: Path, name: str, every: int, max_pixels: int) -> Iterator[tuple[int, np.ndarray]]:
    """Each n-th frame of a video with its number from 0: uint8 `h w 3`, RGB, turned as the video asks for.

    Raises:
        InputError: missing, empty, no video, without frames, too large or too small, damaged, or cut short; the frames
            that are there come first.
    """
    number, end_s = -1, 0.0
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{name}: is empty, 0 bytes")
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{name}: the file holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            _check_size(name, stream.width, stream.height, max_pixels)
            for number, frame in enumerate(container.decode(stream)):
                end_s = max(end_s, _end_s(stream, number, frame))
                if number % every == 0:
                    pixels = frame.to_ndarray(format="rgb24")
                    yield number, np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))
            promised_s = _promised_s(container, stream)
    except (av.FFmpegError, OSError) as error:
        after = f" after frame {number}" if number >= 0 else ""
        said = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: cannot be read{after}: {said}") from error
    if number < 0:
        raise InputError(f"{name}: the video has no frames")
    if end_s < _WHOLE * promised_s - _FEW / _rate(stream):
        raise InputError(f"{name}: is cut short: it should take {promised_s:.1f} s, and ends after {end_s:.1f} s")


def _check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise InputError(f"{name}: frames are {width} x {height} px, more than max_pixels allows")
    if min(width, height) < SMALLEST_BOX_PX:
        raise InputError(f"{name}: frames are {width} x {height} px; they must be at least {SMALLEST_BOX_PX:g} px wide")


def _rate(stream: av.VideoStream) -> Fraction:
    return Fraction(stream.average_rate) if stream.average_rate else _STILL_RATE


def _end_s(stream: av.VideoStream, number: int, frame: av.VideoFrame) -> float:
    """When a frame has been shown, s from the video's start: by its time stamp, or by its number if that is later."""
    by_number = (number + 1) / float(_rate(stream))
    if frame.pts is None or frame.time_base is None:
        return by_number
    shown = frame.pts + frame.duration - (stream.start_time or 0)
    return max(by_number, float(shown * frame.time_base))


def _promised_s(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """How long a video is, s, as its head says; 0 where that says nothing, as in MPEG program streams."""
    if container.format.name == "avi":  # of one that is cut short, FFmpeg estimates the duration
        return stream.frames / float(_rate(stream))
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))  # Matroska's
    if tag:
        return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
    alone = len(container.streams) == 1  # else the sound may be what lasts
    return (container.duration or 0) / av.time_base if alone else 0.0


def count_frames(path: Path, every: int) -> int:
    """How many frames `read_frames` will give, as the file says; 0 where it does not."""
    try:
        with av.open(str(path)) as container:
            return -(-container.streams.video[0].frames // every) if container.streams.video else 0
    except (av.FFmpegError, OSError):
        return 0


def frame_rate(path: Path, every: int) -> Fraction:
    """Frames per second of what `read_frames` gives."""
    with av.open(str(path)) as container:
        return _rate(container.streams.video[0]) / every


class VideoWriter:
    """A video that grows frame by frame; `open_writer` makes one."""

    def __init__(self, container: av.container.OutputContainer, rate: Fraction) -> None:
        self._container, self._rate = container, rate
        self._stream: av.VideoStream | None = None

    def add(self, picture: np.ndarray) -> None:
        """Append a frame, uint8 `h w 3` RGB; all frames have the first one's size, an odd row or column is cut off."""
        height, width = (side // 2 * 2 for side in picture.shape[:2])
        if self._stream is None:
            codec = next(name for name in _CODECS if name in av.codecs_available)
            self._stream = self._container.add_stream(codec, rate=self._rate.limit_denominator(65535))
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = "yuv420p"  # what every player shows
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())


@contextmanager
def open_writer(path: Path, rate: Fraction) -> Iterator[VideoWriter]:
    """A writer of an MP4 that appears when the block ends well, and not at all when it does not."""
    with written_whole(path) as stream, av.open(stream, "w", format="mp4") as container:
        writer = VideoWriter(container, rate)
        yield writer
        writer.finish()
