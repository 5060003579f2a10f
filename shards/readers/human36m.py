"""Human3.6M in its official layout: videos, poses in CDF files, `metadata.xml`.

A part is one recording of a subject with all its cameras. Each video is decoded once, from its start to the last wanted
frame, and only wanted frames are converted.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np

from poselib.camera import world_to_camera
from poselib.errors import InputError
from shards.readers.checks import FORMULAS, camera_position, choose_convention, skeleton_fault
from shards.readers.h36m_faults import RELEASE_NAMES, Recording, corrected, fault_lines, left_out
from shards.readers.h36m_metadata import Camera, Metadata, guess_take, read_metadata
from shards.readers.h36m_person import Lens, check_subjects, count_wanted, is_wanted, make_person, pose_fault
from shards.readers.h36m_poses import read_poses
from shards.readers.video import OtherLength, decode, open_video
from shards.records import Skipped
from shards.settings import BuildSettings
from shards.source import Part, Person, Reader, Survey
from shards.table import natural_order

ENDS_EARLY: Final = "the video ends before its poses do"
POSES: Final = "MyPoseFeatures/D3_Positions"


@dataclass(frozen=True, eq=False)
class Take(Recording):
    """One recording: where its files lie below the raw folder, and the cameras that filmed it."""

    stem: str
    cameras: dict[str, Camera]

    @property
    def key(self) -> tuple[str, str, int]:
        """Faults are known by file names here, since `mapping` may be missing; others are sub-action 0."""
        return RELEASE_NAMES.get((self.subject, self.stem), (self.subject, self.action, 0))

    @property
    def pose_file(self) -> str:
        """Path of the pose file below the raw folder."""
        return f"{self.subject}/{POSES}/{self.stem}.cdf"

    def video_file(self, camera: str) -> str:
        """Path of a video below the raw folder."""
        return f"{self.subject}/Videos/{self.stem}.{camera}.mp4"


def detect(raw: Path) -> bool:
    """Whether `raw` holds this layout."""
    return (raw / "metadata.xml").is_file() and any(raw.glob(f"S*/{POSES}"))


def parts(settings: BuildSettings) -> list[Part]:
    """One part per recording, by subject's number and name. A camera that filmed any subject is expected of all.

    Raises:
        InputError: a subject that was asked for or its videos are missing, or there are no recordings at all.
    """
    raw = settings.raw
    metadata = read_metadata(raw / "metadata.xml")
    found = sorted((p.parent.parent.name for p in raw.glob(f"S*/{POSES}")), key=natural_order)
    check_subjects(settings, found)
    videos = {subject: _videos(raw, subject, metadata) for subject in found}
    filming = sorted({camera for pairs in videos.values() for _, camera in pairs})
    result = []
    for subject in [name for name in found if not settings.subjects or name in settings.subjects]:
        if not videos[subject]:
            raise InputError(
                f"{raw / subject / 'Videos'} holds no video of a known camera; unpack them, or set subjects"
            )
        cameras = {name: metadata.cameras[subject, name] for name in filming}
        posed = {path.stem for path in (raw / subject / POSES).glob("*.cdf")}
        stems = sorted(stem for stem in posed | {stem for stem, _ in videos[subject]} if not stem.startswith("_ALL"))
        for stem in stems:
            action, subaction = metadata.takes.get((subject, stem)) or guess_take(stem, stems)
            result.append(Part(f"{subject}_{action}_{subaction}", Take(subject, action, subaction, stem, cameras)))
    if not result:
        raise InputError(f"{raw} holds no pose files (*/{POSES}/*.cdf)")
    return result


def read(settings: BuildSettings, part: Part) -> Iterator[Person | Skipped]:
    """The wanted frames of a recording, camera by camera."""
    take: Take = part.content
    cameras = [name for name in sorted(take.cameras) if not left_out(settings, take, name)]
    if not cameras:
        return
    poses, fault = _take_poses(settings, take)
    if fault:
        yield _lost(settings, take, cameras, poses, fault)
        return
    for name in cameras:
        yield from _film(settings, take, name, poses)


def faults(settings: BuildSettings) -> tuple[str, ...]:
    """Known faults of the release that concern this set; the studio's data has none."""
    held = {part.content.key for part in parts(settings)}
    return fault_lines(settings, lambda take: take.key in held)


def split(settings: BuildSettings) -> str:
    """Human3.6M is split by subjects, when it is read."""
    return ""


def survey(settings: BuildSettings, part: Part) -> Survey:
    """Frames by camera, from the poses and the heads of the videos."""
    take: Take = part.content
    cameras = [name for name in sorted(take.cameras) if not left_out(settings, take, name)]
    poses, fault = _take_poses(settings, take)
    if fault:
        return Survey({}, (), (_lost(settings, take, cameras, poses, fault),))
    counts: dict[tuple[str, str, str], int] = {}
    notes, damage = [], []
    for name in cameras:
        camera, file = take.cameras[name], take.video_file(name)
        try:
            with open_video(settings.raw / file, len(poses)) as container:
                stream = container.streams.video[0]
                size, frames = (stream.width, stream.height), stream.frames or len(poses)
            convention = choose_convention(poses, camera.rotation, camera.position_mm, camera.intrinsics, size)
        except (av.FFmpegError, OSError, ValueError) as error:
            damage.append(Skipped(file, -1, _reason(error), _lost_frames(error, len(poses), settings)))
            continue
        notes.append(FORMULAS[convention])
        place = camera_position(convention, camera.rotation, camera.position_mm)
        lost = _pose_damage(settings, file, world_to_camera(poses, camera.rotation, place), frames)
        damage += lost
        kept = count_wanted(len(poses), settings) - sum(skip.samples for skip in lost)
        counts[take.subject, take.action, name] = kept
    return Survey(counts, tuple(notes), tuple(damage))


READER: Final = Reader(
    "h36m",
    "people",
    f"metadata.xml beside S1/{POSES}/*.cdf and S1/Videos/*.mp4",
    detect,
    parts,
    read,
    faults,
    split,
    survey,
)


def _reason(error: Exception) -> str:
    if isinstance(error, av.FFmpegError):
        return f"the video is damaged or cut short ({error.strerror})"
    return getattr(error, "strerror", None) or str(error)


def _lost_frames(error: Exception, poses: int, settings: BuildSettings) -> int:
    """How many wanted frames a recording has that a video cannot give, as far as poses and video tell."""
    return count_wanted(max(poses, error.frames) if isinstance(error, OtherLength) else poses, settings)


def _pose_damage(settings: BuildSettings, file: str, joints_mm: np.ndarray, frames: int) -> list[Skipped]:
    """What a build would skip of a sound video of so many frames, told from its poses `f 17 3` mm, camera frame."""
    wanted = [frame for frame in range(len(joints_mm)) if is_wanted(frame, settings)]
    filmed = [frame for frame in wanted if frame < frames]
    damage = [Skipped(file, frame, fault) for frame in filmed if (fault := pose_fault(joints_mm[frame]))]
    if len(filmed) < len(wanted):
        damage.append(Skipped(file, wanted[len(filmed)], ENDS_EARLY, len(wanted) - len(filmed)))
    return damage


def _videos(raw: Path, subject: str, metadata: Metadata) -> set[tuple[str, str]]:
    """Recordings and cameras of a subject's videos; others than the four known cameras are left alone."""
    pairs = [path.stem.rpartition(".") for path in (raw / subject / "Videos").glob("*.mp4")]
    return {(stem, camera) for stem, _, camera in pairs if (subject, camera) in metadata.cameras}


def _lost(settings: BuildSettings, take: Take, cameras: list[str], poses: np.ndarray, fault: str) -> Skipped:
    """A recording without usable poses; where not even their number is known, the videos tell it."""
    frames = len(poses)
    for name in cameras:
        with (
            suppress(av.FFmpegError, OSError, ValueError),
            open_video(settings.raw / take.video_file(name)) as container,
        ):
            frames = frames or container.streams.video[0].frames
    return Skipped(take.pose_file, -1, fault, max(1, count_wanted(frames, settings)) * len(cameras))


def _take_poses(settings: BuildSettings, take: Take) -> tuple[np.ndarray, str]:
    """The poses of a recording, `f 17 3` mm, world frame, and what is wrong with them as a whole, or an empty text."""
    try:
        poses = corrected(settings, take, read_poses(settings.raw / take.pose_file))
    except ValueError as error:
        return np.empty((0, 17, 3)), str(error)
    return poses, skeleton_fault(poses)


def _film(settings: BuildSettings, take: Take, name: str, poses: np.ndarray) -> Iterator[Person | Skipped]:
    """One video: a person or a note of damage for each wanted frame; what a broken video lacks is noted as one."""
    file = take.video_file(name)
    wanted = [frame for frame in range(len(poses)) if is_wanted(frame, settings)]
    camera = take.cameras[name]
    lens = Lens(camera.intrinsics, camera.distortion)
    place: np.ndarray | None = None
    done, lost, reason = 0, len(wanted), ENDS_EARLY
    try:
        for index, frame in decode(settings.raw / file, len(poses), wanted):
            if frame is not None and place is None:
                place = _place(camera, poses, frame)
            done += 1
            if frame is None or place is None:
                yield Skipped(file, index, "the frame is damaged")
                continue
            joints_mm = world_to_camera(poses[index], camera.rotation, place)
            yield make_person(settings, take, name, lens, index, file, frame, joints_mm)
    except (av.FFmpegError, OSError, ValueError) as error:
        lost, reason = _lost_frames(error, len(poses), settings), _reason(error)
    if done < lost:
        yield Skipped(file, wanted[done] if done else -1, reason, lost - done)


def _place(camera: Camera, poses: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Where the camera stands, mm in the world: the release says X_cam = R (X - T), and reprojection must agree."""
    rotation, vector, size = camera.rotation, camera.position_mm, (frame.shape[1], frame.shape[0])
    return camera_position(choose_convention(poses, rotation, vector, camera.intrinsics, size), rotation, vector)
