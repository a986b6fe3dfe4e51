"""A part of a video file, as ComfyUI's Trim Video names it by seconds."""

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..files.fingerprint import fingerprint
from .ffmpeg import FfmpegError, run_ffmpeg
from .frame_times import TIMESCALE
from .sound import heard_until
from .source_video import SourceVideo, open_media, probe_video
from .video_file import Sound, join_videos, read_frames


@dataclass(frozen=True)
class VideoPart:
    """Frames `first` to `stop` (not included) of those that a player shows of `source`."""

    source: SourceVideo
    first: int
    stop: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self.first == 0 and self.num_after == 0

    @property
    def num_frames(self) -> int:
        """Frames of the part."""
        return self.stop - self.first

    @property
    def num_after(self) -> int:
        """Frames of the file after the part."""
        return self.source.num_frames - self.stop

    def frames(self) -> Iterator[np.ndarray]:
        """Yield its frames [H, W, 3] uint8."""
        with closing(read_frames(self.source.frames_path)) as frames:
            yield from itertools.islice(frames, self.first, self.stop)


def part_between(source: SourceVideo, begin: float = 0.0, seconds: float = 0.0) -> VideoPart:
    """Return the part of `source` from `begin` on, in seconds as its file counts them; 0 `seconds` for all the rest.

    A frame belongs to it as in ComfyUI: if its time stamp lies between the two ends, rounded down to ticks of the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the part has no frame.
    """
    if not (begin or seconds):
        return VideoPart(source, 0, source.num_frames)
    with open_media(source.path) as container:
        stream = container.streams.video[0]
        tick = float(stream.time_base or 1 / int(TIMESCALE))
        zero = stream.start_time or 0
    stamps = [zero + round((time - source.late) / tick) for time in source.shown.times]
    first = sum(stamp < int(begin / tick) for stamp in stamps)
    stop = sum(stamp < int((begin + seconds) / tick) for stamp in stamps) if seconds else len(stamps)
    if first >= stop:
        length = f", for {seconds:g} s" if seconds else ""
        raise ValueError(
            f"{source.path.name} has no frame in the part that begins at {begin:g} s{length}; it lasts "
            f"{source.shown.end:.2f} s: begin earlier, or take a longer part."
        )
    return VideoPart(source, first, stop)


def keep_part(folder: Path, part: VideoPart) -> SourceVideo:
    """Write `part` to a file in `folder`, its frames without loss and at their times, with its sound; return that video.

    The file is named after its content, and made once.

    Raises:
        OSError: it cannot be read or written, or ffmpeg cannot store its pixels without loss.
    """
    source = part.source
    identity = fingerprint("part", source.key, part.first, part.stop)
    path = folder / f"svi-part-{identity[:16]}.mp4"
    if not path.exists():
        silent, sound = (path.with_name(f"{path.stem}-{name}") for name in ("frames.mp4", "sound.m4a"))
        try:
            _write_frames(silent, part)
            join_videos(path, [silent], part.num_frames, sound=_write_sound(sound, part))
        finally:
            silent.unlink(missing_ok=True)
            sound.unlink(missing_ok=True)
    return replace(probe_video(path), identity=identity)


def _write_frames(path: Path, part: VideoPart) -> None:
    chosen = f"select=between(n\\,{part.first}\\,{part.stop - 1}),setpts=PTS-STARTPTS,setsar=sar"
    arguments = [
        "-i", part.source.path, "-map", "0:v:0", "-vf", chosen, "-fps_mode", "passthrough",
        "-enc_time_base", f"1:{TIMESCALE}", "-c:v", "libx264", "-qp", "0", "-preset", "veryfast", "-bf", "0",
        "-pix_fmt", part.source.pixel_format, "-video_track_timescale", TIMESCALE,
    ]  # fmt: skip
    try:
        run_ffmpeg(path, arguments)
    except FfmpegError as error:
        raise OSError(
            f"a part of {part.source.path.name} cannot be cut out without loss: save it with Save Video. {error}"
        ) from error


def _write_sound(path: Path, part: VideoPart) -> Sound | None:
    sound = part.source.sound(part.stop)
    if sound is None:
        return None
    begin, end = part.source.shown.times[part.first], part.source.shown.end_of(part.stop)
    graph = f"{heard_until(end, '0:a:0', 'h')};[h]atrim=start={begin:.6f},asetpts=PTS-STARTPTS[out]"
    run_ffmpeg(path, [*sound.input, "-filter_complex", graph, "-map", "[out]", "-c:a", "aac", "-b:a", "192k"])
    return Sound(path, "aac", end - begin)
