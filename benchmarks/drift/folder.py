"""Score existing videos: the pack's own drift report for each, and VBench's dimensions if its models are installed."""

import json
from pathlib import Path

from benchmarks.loop.report import table
from svi_core.look.drift import DriftReport, measure_drift
from svi_core.store.records import read_manifest
from svi_core.video.frame_times import count_frames
from svi_core.video.video_file import read_frames

from ..drift import vbench


def score_folder(folder: Path, clip_length: int, output: Path) -> str:
    """Return the tables for all mp4 files of a folder, and write them with all numbers to `output`.

    Args:
        folder: with the videos.
        clip_length: frames per clip; 0: as recorded in each video.
        output: folder for drift.json and drift.md.

    Raises:
        ValueError: no video, or one whose clips are unknown.
    """
    paths = sorted(path for path in folder.glob("*.mp4") if path.is_file())
    if not paths:
        raise ValueError(f"{folder} holds no mp4 file: name a folder of videos.")
    reports = {path.name: measure_drift(read_frames(path), _clip_lengths(path, clip_length)) for path in paths}
    judged = vbench.measure(folder, output / "vbench")
    text = "\n\n".join([
        table(["video", "verdict", "clips", "colour drift", "sharpness drift", "motion x255", "largest seam"],
              [_row(name, report) for name, report in reports.items()]),
        table([f"VBench, mean over {len(paths)} videos", "value"], judged.items()),
        *(f"### {name}\n\n{report.table()}" for name, report in reports.items()),
    ]) + "\n"  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    everything = {"videos": {name: report.as_dict() for name, report in reports.items()}, "vbench": judged}
    (output / "drift.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
    (output / "drift.md").write_text(text, encoding="utf-8")
    return text


def _clip_lengths(path: Path, clip_length: int) -> list[int]:
    if clip_length == 0:
        clips = read_manifest(path)
        if clips is None:
            raise ValueError(f"{path.name} is no video of an SVI run, so its clips are not known: give --clip-length.")
        return [clip.num_frames for clip in clips]
    total = count_frames(path)
    return [min(clip_length, total - start) for start in range(0, total, clip_length)]


def _row(name: str, report: DriftReport) -> list[str]:
    first, last = report.clips[0], report.clips[-1]
    seams = [clip.seam for clip in report.clips if clip.seam is not None]
    return [
        name,
        report.verdict.split(":")[0],
        str(len(report.clips)),
        f"{report.colour_distance[-1]:.3f}",
        f"{last.sharpness - first.sharpness:+.2f}",
        f"{255 * sum(clip.motion for clip in report.clips) / len(report.clips):.2f}",
        f"{max(seams):.2f}" if seams else "",
    ]
