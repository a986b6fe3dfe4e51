"""``python -m batch score``: measure the videos of a folder, and write tables and one page to look at."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batch.records import OutputFolder
from batch.report.page import page
from batch.scoring.check_list import FILE, PUBLISHED_PASS_RATE, CheckList, read_check_list
from batch.scoring.sample import VIDEO_SUFFIXES, Sample, clip_lengths
from batch.scoring.scores import Scores, as_json, clips_csv, samples_csv, score
from batch.scoring.truth import true_videos
from svi_core.files.atomic_file import write_bytes
from svi_core.files.fingerprint import file_sha256
from svi_core.files.sealed_json import read_sealed
from svi_core.files.strict_json import read_json
from svi_core.schedule.text import parse_schedule

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
        scores.checks = checks
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
    videos = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES}
    if not videos:
        raise ValueError(f"{folder} holds no video ({', '.join(VIDEO_SUFFIXES)})")
    order = [name for name in _batch_order(folder) if name in videos]
    samples, unscored = [], {}
    for name in (*order, *(name for name in videos if name not in order)):
        try:
            samples.append(_sample(name, videos[name], OutputFolder(folder), clip_length))
        except (ValueError, OSError) as error:
            unscored[name] = str(error)
    return samples, unscored


def _batch_order(folder: Path) -> list[str]:
    try:
        return [str(entry["name"]) for entry in read_sealed(folder / "batch.json")["stories"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # no batch made these videos, or it was killed: they come by name


def _sample(name: str, video: Path, folder: OutputFolder, clip_length: int) -> Sample:
    record = folder.record(name)
    lengths = clip_lengths(video, clip_length, record.num_clips if record else 0, _graph(folder.story(name)))
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
        judged = len(scores.checks.judged())
        _say(f"{rate:.0%} of {judged} judged cases passed; published for 14 cases: {PUBLISHED_PASS_RATE:.0%}")
    _say(f"look at {output / 'report.html'}")


def _say(message: str) -> None:
    sys.stderr.write(f"[svi] {message}\n")
    sys.stderr.flush()
