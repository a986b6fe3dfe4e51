"""``python -m batch score``: measure the videos of a folder, and write tables and one page to look at."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batch.records import DONE, OutputFolder, Record
from batch.report.page import page
from batch.scoring.check_list import FILE, PUBLISHED_PASS_RATE, CheckList, read_check_list
from batch.scoring.sample import VIDEO_SUFFIXES, Sample, clip_lengths
from batch.scoring.scores import Scores, as_json, clips_csv, samples_csv, score
from batch.scoring.truth import true_videos
from batch.tables.benchmarks import BENCHMARKS, OTHER, PRODUCTION, benchmark_of
from svi_core.files.atomic_file import write_bytes
from svi_core.files.fingerprint import file_sha256
from svi_core.files.sealed_json import read_sealed
from svi_core.files.strict_json import read_json
from svi_core.schedule.text import parse_schedule

_JUDGED = (BENCHMARKS[PRODUCTION], OTHER)  # the pass rate is of the first of them that has stories
NOT_MADE = "not made from this row yet"
OUTPUT = "scores"  # in the folder of videos


def main(options: argparse.Namespace) -> int:
    """Score a folder; return the exit code: 0 all videos are scored, 1 some are not, 2 bad arguments."""
    output = options.output or options.folder / OUTPUT
    try:
        samples, unscored = find_samples(options.folder, options.clip_length)
        references = true_videos(samples, options.references)
        checks = _checks(options, samples)
        scores = score(samples, output / "measured", references, _say)
        scores.unscored |= unscored
        scores.checks = replace(checks, **_cases(scores))
        _write(scores, options.folder, output)
    except (ValueError, OSError) as error:
        _say(f"error: {error}")
        return 2
    _tell(scores, output)
    return 1 if scores.unscored else 0


def find_samples(folder: Path, clip_length: int) -> tuple[list[Sample], dict[str, str]]:
    """Return the videos of a folder in the order of its batch, if it is of one, and why others cannot be scored.

    Raises:
        ValueError: there is no video.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name one of videos, such as the --output of a batch")
    videos: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            videos.setdefault(path.stem, []).append(path)
    if not videos:
        raise ValueError(f"{folder} holds no video ({', '.join(VIDEO_SUFFIXES)})")
    stories = _stories(folder)
    samples, unscored = [], {}
    for name in dict.fromkeys((*stories, *videos)):
        try:
            record = OutputFolder(folder).record(name)
            video = _video(videos.get(name, []), record, stories.get(name, ""))
            samples.append(_sample(name, video, record, OutputFolder(folder).story(name), clip_length))
        except (ValueError, OSError) as error:
            unscored[name] = str(error)
    return samples, unscored


def _stories(folder: Path) -> dict[str, str]:
    """Return the stories of the folder's batch in their order, and why the last run did not make each; "" if it did."""
    try:
        return {str(entry["name"]): str(entry.get("reason") or "") for entry in read_sealed(folder / "batch.json")["stories"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # no batch made these videos, or it was killed: they come by name


def _video(files: Sequence[Path], record: Record | None, reason: str) -> Path:
    """Return the one file that was made from the row of a story as it is now; raise ValueError if there is none."""
    if record is not None and record.status != DONE:
        reason = reason or record.error or record.status
    if reason:
        raise ValueError(f"{NOT_MADE}: {reason}" if files else reason)
    if record is not None:
        files = [path for path in files if path.name == record.video.get("file")]
    if not files:
        raise ValueError(f"{NOT_MADE}: its video is not in the folder")
    if len(files) > 1:
        raise ValueError(f"{' and '.join(path.name for path in files)} have one name: keep one of them")
    if record is not None and file_sha256(files[0]) != record.video.get("sha256"):
        raise ValueError(f"{NOT_MADE}: {files[0].name} is not the file that the batch made")
    return files[0]


def _sample(name: str, video: Path, record: Record | None, story: Path, clip_length: int) -> Sample:
    lengths = clip_lengths(video, clip_length, record.num_clips if record else 0, _graph(story))
    if not lengths:
        raise ValueError("it holds no frame")
    prompts = _prompts(record.values.get("prompts") if record else None)
    return Sample(name, video, file_sha256(video), prompts, lengths)


def _graph(story: Path) -> dict[str, Any]:
    path = story / "graph.json"
    graph = read_json(path) if path.is_file() else {}
    return graph if isinstance(graph, dict) else {}


def _prompts(text: object) -> tuple[str, ...]:
    if not isinstance(text, str):
        return ()
    try:
        return tuple(paragraph.spec.prompt for paragraph in parse_schedule(text).paragraphs)
    except ValueError:
        return (text,)


def _checks(options: argparse.Namespace, samples: Sequence[Sample]) -> CheckList:
    """Return the check list that the user names, or that lies in the folder of videos."""
    path = options.check_list or options.folder / FILE
    if options.check_list is None and not path.is_file():
        return CheckList({})
    return read_check_list(path, samples)


def _cases(scores: Scores) -> dict[str, tuple[str, ...]]:
    """Return the stories that the pass rate is of, and those of them that have no valid video."""
    names = [*(sample.name for sample in scores.samples), *scores.unscored]
    counted = next(filter(None, ([name for name in names if benchmark_of(name) is table] for table in _JUDGED)), [])
    valid = {sample.name for sample in scores.valid()}
    return {"cases": tuple(counted), "failed": tuple(name for name in counted if name not in valid)}


def _write(scores: Scores, folder: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    made = f"{time.strftime('%Y-%m-%d %H:%M')}, {folder.absolute()}"
    try:
        videos = quote(Path(os.path.relpath(folder, output)).as_posix())
    except ValueError:  # another drive of Windows
        videos = folder.absolute().as_uri()
    write_bytes(output / "report.html", page(scores, f"Scores of {folder.absolute().name}", made, videos))
    write_bytes(output / "scores.json", as_json(scores))
    write_bytes(output / "samples.csv", samples_csv(scores))
    write_bytes(output / "clips.csv", clips_csv(scores))


def _tell(scores: Scores, output: Path) -> None:
    for sample in scores.samples:
        if reasons := scores.looks[sample.name].reasons:
            _say(f"INVALID: {sample.name} ({', '.join(reasons)})")
    for name, reason in scores.unscored.items():
        _say(f"not scored: {name}: {reason}")
    for reason, metrics in scores.missing().items():
        _say(f"absent: {', '.join(metrics)}: {reason}")
    for name in scores.checks.outdated:
        _say(f"the answers about {name} do not count: its video has changed since")
    rate = scores.checks.pass_rate()
    if rate is not None:
        failed = len(scores.checks.failed)
        also = f" ({failed} INVALID or not scored: not passed)" if failed else ""
        decided = len(scores.checks.judged()) + failed
        _say(f"{rate:.0%} of {decided} judged cases passed{also}; published for 14 cases: {PUBLISHED_PASS_RATE:.0%}")
    _say(f"look at {output / 'report.html'}")


def _say(message: str) -> None:
    sys.stderr.write(f"[svi] {message}\n")
    sys.stderr.flush()
