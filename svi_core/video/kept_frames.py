"""Frames in memory, kept as files that the rest of the code can read: one that plays, and one without loss.

Players and browsers show H.264 in 4:2:0 with crf above 0, which loses a little. So the frames are kept a second time, as
they are: clips are conditioned on those, and joins and measurements read them.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..files.atomic_file import staged
from ..files.fingerprint import fingerprint
from .ffmpeg import ffmpeg_writing
from .sound import SoundTrack
from .source_video import SourceVideo, probe_video
from .video_file import VideoCoding, join_videos, write_video

_CRF = 8  # less loss than an eye sees

Chunks = Callable[[], Iterable[np.ndarray]]


def keep_frames(folder: Path, chunks: Chunks, frame_rate: float, sound: SoundTrack | None) -> SourceVideo:
    """Write frames and sound to files in `folder` that are named after their content, once; return the video.

    Args:
        chunks: returns the frames anew at each call, in chunks [t, H, W, 3] uint8.

    Raises:
        OSError: a file could not be written.
        ValueError: there is no frame.
    """
    digest, size = hashlib.sha256(), (0, 0)
    for chunk in chunks():
        size = chunk.shape[2], chunk.shape[1]
        digest.update(np.ascontiguousarray(chunk).data)
    if 0 in size:
        raise ValueError("video holds no frame: connect frames to Create Video.")
    identity = fingerprint("frames", digest.hexdigest(), size, frame_rate, sound and sound.key)
    path = folder / f"svi-frames-{identity[:16]}.mp4"
    exact = path.with_suffix(".mkv")
    if not exact.exists():
        _write_exact(exact, chunks(), size, frame_rate)
    if not path.exists():
        _write_playable(path, chunks(), size, frame_rate, sound)
    return replace(probe_video(path), identity=identity, exact=exact)


def _write_exact(path: Path, chunks: Iterable[np.ndarray], size: tuple[int, int], frame_rate: float) -> None:
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", str(frame_rate), "-i", "-"]
    coding = ["-c:v", "ffv1", "-level", "3", "-g", "1", "-pix_fmt", "bgr0"]
    with staged(path) as staging, ffmpeg_writing(staging, [*raw, *coding], path) as write:
        for chunk in chunks:
            write(np.ascontiguousarray(chunk).data)


def _write_playable(
    path: Path, chunks: Iterable[np.ndarray], size: tuple[int, int], frame_rate: float, sound: SoundTrack | None
) -> None:
    is_even = not (size[0] % 2 or size[1] % 2)
    coding = VideoCoding(crf=_CRF, pixel_format="yuv420p" if is_even else "yuv444p", frame_rate=frame_rate)
    if sound is None:
        write_video(path, chunks, coding)
        return
    silent, heard = path.with_name(f"{path.stem}-silent.mp4"), None
    try:
        num_frames = write_video(silent, chunks, coding).num_frames
        heard = sound.kept_in(path.parent)
        join_videos(path, [silent], num_frames, sound=replace(heard, seconds=min(heard.seconds, num_frames / frame_rate)))
    finally:
        for file in (silent, *((heard.path, heard.path.with_suffix(".json")) if heard else ())):
            file.unlink(missing_ok=True)
