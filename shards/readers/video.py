"""One video of poses: decoded once and in order, only the wanted frames converted.

A frame's number comes from the time stamps of the packets, not from counting what the decoder gives: a packet that the
decoder drops must not move the following pictures to other poses.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.video.reformatter import VideoReformatter

COUNTS_DIFFER: Final = 0.1
"""Videos of the release run on for some frames after the last pose; beyond this share they belong to another pose."""


class OtherLength(ValueError):
    """A video of so many `frames` that it must belong to other poses."""

    def __init__(self, frames: int, poses: int) -> None:
        super().__init__(f"the video has {frames} frames, its pose file {poses}")
        self.frames = frames


@contextmanager
def open_video(path: Path, poses: int | None = None) -> Iterator[av.container.InputContainer]:
    """A video that may belong to this many poses.

    Raises:
        ValueError: it is missing or holds no video.
        OtherLength: it has far more frames.
    """
    if not path.is_file():
        raise ValueError("the video is missing, though its poses and other videos of this camera are there")
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("the file holds no video")
        frames = container.streams.video[0].frames
        if poses is not None and frames > poses * (1 + COUNTS_DIFFER) + 1:
            raise OtherLength(frames, poses)
        yield container


def decode(path: Path, poses: int, wanted: list[int]) -> Iterator[tuple[int, np.ndarray | None]]:
    """The wanted frames of a video with their numbers, ascending: uint8 `h w 3`, RGB; None for a damaged one.

    Damage spreads until the next key frame, and to earlier frames that were coded after it: those are held back until
    what they may lean on has been seen.

    Raises:
        ValueError: as `open_video`; or frames are missing, so that the rest would meet the wrong poses.
        av.FFmpegError: the file is damaged or cut short.
    """
    with open_video(path, poses) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # the build already has a process per core
        reach = 2**stream.codec_context.has_b_frames
        keep, last = set(wanted), wanted[-1]
        held: deque[tuple[int, np.ndarray | None]] = deque()
        spoiled = False
        converter = VideoReformatter()  # its tables serve all frames; a frame of its own would make them anew
        try:
            for index, frame in _numbered(container, stream, poses):
                if frame.is_corrupt:
                    held = deque((number, None) for number, _ in held)
                spoiled = frame.is_corrupt or (spoiled and not frame.key_frame)
                if index in keep:
                    held.append((index, None if spoiled else converter.reformat(frame, format="rgb24").to_ndarray()))
                while held and held[0][0] <= index - reach:
                    yield held.popleft()
                if index >= last + reach:
                    break
        except (av.FFmpegError, ValueError):
            yield from held
            raise
        yield from held


def _numbered(
    container: av.container.InputContainer, stream: av.VideoStream, poses: int
) -> Iterator[tuple[int, av.VideoFrame]]:
    """All frames in order with their numbers from 0."""
    stamps: list[int] = []
    step = 0.0 if not stream.average_rate or not stream.time_base else 1 / (stream.average_rate * stream.time_base)
    lacking = stream.frames < poses
    for packet in container.demux(stream):
        if packet.pts is not None:
            insort(stamps, packet.pts)
        for frame in packet.decode():
            if frame.pts is None:
                raise ValueError("a frame has no time stamp")
            index = bisect_left(stamps, frame.pts)
            if lacking and step and frame.pts - stamps[0] > (index + 0.5) * step:
                raise ValueError(f"frames are missing before frame {index}, and the pose file has more of them")
            yield index, frame
