"""What we measure on every video in one pass over its frames: drift, seams, and the frames of its filmstrip.

Results are kept beside the report by the sha256 of the video, so that scoring again is quick.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from batch.scoring.sample import Sample
from svi_core.files.atomic_file import write_bytes
from svi_core.files.sealed_json import read_sealed, write_sealed
from svi_core.look.drift import DriftMeter
from svi_core.look.filmstrip import BACKGROUND, spread

STRIP_FRAMES = 10
STRIP_HEIGHT = 108
_GAP = 4  # pixels between its frames
_VERSION = 2
_CHUNK_VALUES = 2**22  # of the frames that are measured at once


@dataclass(frozen=True)
class VideoLook:
    """The measures of one video.

    Attributes:
        report: svi_core.look.drift.DriftReport as plain data.
        strip: a JPEG of frames spread over the video, side by side.
        strip_size: its width and height.
        columns: frames in it.
    """

    report: Mapping[str, Any]
    strip: bytes
    strip_size: tuple[int, int]
    columns: int

    @property
    def reasons(self) -> list[str]:
        """Why the video is INVALID; empty if it is valid."""
        return list(self.report["reasons"])

    def per_clip(self) -> dict[str, list[float | None]]:
        """Return our measures over the clips: changes are from the first clip."""
        clips = self.report["clips"]
        return {
            "colour drift": list(self.report["colour_distance"]),
            "sharpness change": [clip["sharpness"] - clips[0]["sharpness"] for clip in clips],
            "contrast change": [clip["contrast"] - clips[0]["contrast"] for clip in clips],
            "motion x255": [None if clip["motion"] is None else 255 * clip["motion"] for clip in clips],
            "seam": [clip["seam"] for clip in clips],
        }

    def summary(self) -> dict[str, float]:
        """Return our measures of the whole video; one clip has no drift and no seam."""
        values = self.per_clip()
        seams = [seam for seam in values["seam"] if seam is not None]
        drifts = {"colour drift": "colour drift", "sharpness drift": "sharpness change"} if len(values["seam"]) > 1 else {}
        return {
            **{name: float(values[change][-1] or 0.0) for name, change in drifts.items()},
            "motion x255": float(np.mean([motion for motion in values["motion x255"] if motion is not None])),
            **({"largest seam": max(seams)} if seams else {}),
        }


def look_at(sample: Sample, folder: Path) -> VideoLook:
    """Return the measures of a video, from `folder` if they were made of the same bytes before.

    Raises:
        OSError: the video cannot be read.
        ValueError: it has not the frames of its clips.
    """
    facts_file, strip_file = folder / f"{sample.name}.json", folder / f"{sample.name}.jpg"
    key = {"version": _VERSION, "sha256": sample.sha256, "clips": list(sample.clip_lengths)}
    try:
        facts = read_sealed(facts_file)
        if facts["key"] == key:
            return VideoLook(facts["report"], strip_file.read_bytes(), tuple(facts["strip_size"]), facts["columns"])
    except (OSError, ValueError, KeyError):
        pass  # not measured yet, or damaged: it is measured again
    look = _measured(sample)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(strip_file, look.strip)
    write_sealed(facts_file, {"key": key, "report": look.report, "strip_size": look.strip_size, "columns": look.columns})
    return look


def _measured(sample: Sample) -> VideoLook:
    from svi_core.video.source_video import probe_video
    from svi_core.video.video_file import read_frames

    total = sum(sample.clip_lengths)
    wanted = set(spread(total, min(STRIP_FRAMES, total)))
    meter = DriftMeter(sample.clip_lengths, probe_video(sample.video).frame_rate)
    pictures: list[Image.Image] = []
    chunk: list[np.ndarray] = []
    for index, frame in enumerate(read_frames(sample.video)):
        if index in wanted:
            size = max(1, round(STRIP_HEIGHT * frame.shape[1] / frame.shape[0])), STRIP_HEIGHT
            pictures.append(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
        chunk.append(frame)
        if (len(chunk) + 1) * frame.size > _CHUNK_VALUES:
            meter.add(np.stack(chunk))
            chunk = []
    if chunk:
        meter.add(np.stack(chunk))
    report = meter.report()
    strip, size = _joined(pictures)
    return VideoLook(report.as_dict(), strip, size, len(pictures))


def _joined(pictures: list[Image.Image]) -> tuple[bytes, tuple[int, int]]:
    width, height = pictures[0].size
    strip = Image.new("RGB", ((width + _GAP) * len(pictures) - _GAP, height), BACKGROUND)
    for column, picture in enumerate(pictures):
        strip.paste(picture, (column * (width + _GAP), 0))
    data = io.BytesIO()
    strip.save(data, "JPEG", quality=82)
    return data.getvalue(), strip.size
