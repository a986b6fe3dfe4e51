"""The disk space that a run needs."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..geometry import LATENT_CHANNELS
from ..store.records import ClipRecord
from .expected_clips import ExpectedClip
from .requested_run import RequestedRun

# A very rough rule of thumb at crf 18; six steps of crf halve or double it.
_BITS_PER_PIXEL = {"h264": 0.4, "h265": 0.25}


@dataclass(frozen=True)
class DiskNeed:
    """What a run will write, and the free space. Sizes are None if the frame size or the folder is unknown.

    Attributes:
        latent_bytes: exact size of the latents of new clips.
        video_bytes: approximate size of their segments and of the joined video.
        peak_bytes: most space needed at once: the earlier video stays until the new one is joined.
        is_measured: the video's size follows from segments of this run, not from a rule of thumb.
        free_bytes: free space on the disk of the run folder.
    """

    latent_bytes: int | None
    video_bytes: int | None
    peak_bytes: int | None
    is_measured: bool
    free_bytes: int | None

    @property
    def warnings(self) -> tuple[str, ...]:
        if self.peak_bytes is None or self.free_bytes is None or self.peak_bytes <= self.free_bytes:
            return ()
        space = f"{self.free_bytes / 1e9:.1f} GB are free, but about {self.peak_bytes / 1e9:.1f} GB are needed"
        return (f"the disk is too small: {space}. Free space, make fewer clips, or raise crf.",)


def disk_need(run: RequestedRun, clips: Sequence[ExpectedClip], records: Sequence[ClipRecord]) -> DiskNeed:
    """Return the disk space that `run` needs; `records` are those of its folder."""
    free = None
    if run.folder is not None:
        nearest = next(path for path in (run.folder, *run.folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(nearest).free
    if run.size is None:
        return DiskNeed(None, None, None, False, free)
    width, height = run.size
    new = [clip for clip in clips if not clip.is_stored]
    slots = sum(clip.request.layout.num_slots for clip in new)
    latent_bytes = slots * LATENT_CHANNELS * (height // 8) * (width // 8) * run.value_bytes
    measured = run.folder and _measured_frame_bytes(run.folder, run.coding.tag, records)
    bits = _BITS_PER_PIXEL[run.coding.codec] * 2 ** ((18 - run.coding.crf) / 6)
    frame_bytes = measured or width * height * bits / 8
    segments = int(frame_bytes * sum(clip.num_frames for clip in new))
    joined = int(frame_bytes * (run.num_start_frames + sum(clip.num_frames for clip in clips)))
    peak = latent_bytes + segments + 2 * joined
    return DiskNeed(latent_bytes, segments + joined, peak, measured is not None, free)


def _measured_frame_bytes(folder: Path, tag: str, records: Sequence[ClipRecord]) -> float | None:
    """Return the bytes per frame of finished segments with the coding `tag`, or None."""
    total_bytes = total_frames = 0
    for record in records:
        for name, facts in record.segments.items():
            path = folder / "clips" / f"{record.key}-{name}.mp4"
            if name.endswith(tag) and path.is_file():
                total_bytes += path.stat().st_size
                total_frames += facts["num_frames"]
    return total_bytes / total_frames if total_frames else None
