"""All numbers of a folder of videos: per video, per clip and per benchmark. An INVALID video has no numbers."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean

from batch.scoring import lip_sync, truth
from batch.scoring.check_list import PUBLISHED_PASS_RATE, CheckList
from batch.scoring.kept import KeptNumbers
from batch.scoring.look import VideoLook, look_at
from batch.scoring.published import DANCE, PUBLISHED, TALK, VBENCH
from batch.scoring.sample import Sample
from batch.scoring.vbench_dimensions import judge
from batch.tables.benchmarks import Benchmark, benchmark_of
from svi_core.files.fingerprint import file_sha256

_SIGNED = ("sharpness drift",)  # one video's blur must not make up for another's over-sharpening
_LONGEST_REASON = 300  # letters

Tell = Callable[[str], None]


@dataclass
class Scores:
    """What is known of the videos of a folder.

    Attributes:
        samples: those that were scored, in the order of the table.
        unscored: names of the others, and why.
        looks: our own measures of each.
        values: name -> metric -> number, of valid videos; VBench from 0 to 1.
        compared: name -> frames over which PSNR and SSIM are means.
        sets: name of a benchmark -> metric -> number, of all its valid videos together.
        counts: name of a benchmark -> metric -> videos that its number in `sets` is of.
        absent: metric -> why it was not measured.
        wanted: metrics that the user asked for, whatever others report.
        checks: what a person said of the videos.
    """

    samples: list[Sample] = field(default_factory=list)
    unscored: dict[str, str] = field(default_factory=dict)
    looks: dict[str, VideoLook] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    compared: dict[str, int] = field(default_factory=dict)
    sets: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    checks: CheckList = field(default_factory=lambda: CheckList({}))

    def valid(self) -> list[Sample]:
        """Return the samples that are not INVALID."""
        return [sample for sample in self.samples if not self.looks[sample.name].reasons]

    def missing(self) -> dict[str, list[str]]:
        """Return why metrics that the user or others ask for were not measured: reason -> metrics."""
        asked = set(self.wanted) | {metric for benchmark in self.groups() for metric in metrics_of(benchmark)}
        reasons: dict[str, list[str]] = defaultdict(list)
        for metric, reason in self.absent.items():
            if metric in asked:
                reasons[reason].append(metric)
        return dict(reasons)

    def groups(self) -> dict[Benchmark, list[Sample]]:
        """Return the samples of each benchmark."""
        found: dict[Benchmark, list[Sample]] = defaultdict(list)
        for sample in self.samples:
            found[benchmark_of(sample.name)].append(sample)
        return dict(found)


def score(samples: Sequence[Sample], folder: Path, references: Mapping[str, Path], tell: Tell) -> Scores:
    """Measure videos with all that is there. A metric that fails is absent, with the reason; the others are measured.

    Args:
        samples: the videos.
        folder: where measures are kept for the next time.
        references: the true videos by name, as `truth.true_videos` finds them.
        tell: called with what happens.

    Raises:
        OSError: the disk is full.
    """
    scores = Scores(wanted=DANCE if references else ())
    for number, sample in enumerate(samples, start=1):
        tell(f"{number} of {len(samples)}: {sample.name}")
        try:
            scores.looks[sample.name] = look_at(sample, folder / "videos")
            scores.samples.append(sample)
        except (OSError, ValueError) as error:
            scores.unscored[sample.name] = str(error)
    valid = scores.valid()
    scores.values = {sample.name: scores.looks[sample.name].summary() for sample in valid}
    _judge(scores, valid, folder / "vbench", tell)
    true_videos = {sample.name: references[sample.name] for sample in valid if sample.name in references}
    _compare(scores, true_videos, KeptNumbers(folder / "pairs.json"))
    talking = [sample for sample in valid if benchmark_of(sample.name).follows == "sound"]
    _listen(scores, talking, KeptNumbers(folder / "lip_sync.json"))
    for benchmark, members in scores.groups().items():
        scores.sets[benchmark.name] = _of_set(scores, benchmark, members, true_videos, folder / "i3d")
    return scores


def _judge(scores: Scores, valid: Sequence[Sample], folder: Path, tell: Tell) -> None:
    for dimension in VBENCH:
        if not valid:
            scores.absent[dimension] = "no video is valid"
            continue
        try:
            found = judge(dimension, valid, folder)
        except Exception as error:  # whatever a foreign package raises costs its own metric only
            found = _failure(error)
        if isinstance(found, str):
            scores.absent[dimension] = found
            continue
        tell(f"VBench: {dimension}")
        for name, value in found.items():
            scores.values[name][dimension] = value


def _failure(error: Exception) -> str:
    """Return in one line why a metric failed."""
    said = " ".join(str(error).split())[:_LONGEST_REASON]
    return said if said and isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {said}".rstrip(": ")


def _compare(scores: Scores, true_videos: Mapping[str, Path], kept: KeptNumbers) -> None:
    """Set PSNR and SSIM of each video that has a true one."""
    missing = truth.missing_for_pairs(dict(true_videos))
    if missing is not None:
        scores.absent |= dict.fromkeys(("PSNR", "SSIM"), missing)
        return
    for sample in scores.samples:
        if sample.name in true_videos:
            try:
                true = true_videos[sample.name]
                key = f"{sample.sha256} {file_sha256(true)}"
                psnr, ssim, num_frames = kept.get(key, partial(truth.psnr_and_ssim, sample.video, true))
                scores.values[sample.name] |= {"PSNR": psnr, "SSIM": ssim}
                scores.compared[sample.name] = int(num_frames)
            except Exception as error:  # see _judge
                scores.absent |= dict.fromkeys(("PSNR", "SSIM"), f"of {sample.name}: {_failure(error)}")


def _listen(scores: Scores, talking: Sequence[Sample], kept: KeptNumbers) -> None:
    """Set Sync-C and Sync-D of each video that follows a sound."""
    missing = lip_sync.missing() if talking else "no valid video follows a sound"
    if missing is not None:
        scores.absent |= dict.fromkeys(TALK[:2], missing)
        return
    for sample in talking:
        try:
            numbers = kept.get(sample.sha256, partial(lip_sync.confidence_and_distance, sample.video))
            scores.values[sample.name] |= dict(zip(TALK[:2], numbers, strict=True))
        except Exception as error:  # see _judge
            scores.absent |= dict.fromkeys(TALK[:2], f"of {sample.name}: {_failure(error)}")


def _of_set(
    scores: Scores, benchmark: Benchmark, members: Sequence[Sample], true_videos: Mapping[str, Path], folder: Path
) -> dict[str, float]:
    """Return the mean of each metric over the valid videos of a benchmark, and their FVD."""
    valid = [sample for sample in members if sample.name in scores.values]
    metrics = dict.fromkeys(metric for sample in valid for metric in scores.values[sample.name])
    numbers = {
        metric: [scores.values[sample.name][metric] for sample in valid if metric in scores.values[sample.name]]
        for metric in metrics
    }
    means = {metric: fmean(map(abs, of) if metric in _SIGNED else of) for metric, of in numbers.items()}
    counts = {metric: len(of) for metric, of in numbers.items()}
    pairs = [(sample.video, true_videos[sample.name]) for sample in valid if sample.name in true_videos]
    missing = truth.missing_for_fvd({str(ours): true for ours, true in pairs})
    if missing is None:
        try:
            means["FVD"] = truth.frechet_video_distance([ours for ours, _ in pairs], [true for _, true in pairs], folder)
            counts["FVD"] = len(pairs)
        except Exception as error:  # see _judge
            missing = _failure(error)
    if missing is not None:
        scores.absent.setdefault("FVD", missing)
    scores.counts[benchmark.name] = counts
    return means


def metrics_of(benchmark: Benchmark) -> tuple[str, ...]:
    """Return the metrics that others report for a benchmark; VBench's for all other videos."""
    if benchmark.name in PUBLISHED:
        return PUBLISHED[benchmark.name][1]
    return {"sound": TALK, "pose": DANCE}.get(benchmark.follows, VBENCH)


def samples_csv(scores: Scores) -> bytes:
    """Return a row for each video; an INVALID one has no numbers."""
    metrics = list(dict.fromkeys(metric for values in scores.values.values() for metric in values))
    rows: list[list[object]] = [["name", "benchmark", "verdict", "clips", "frames", *metrics]]
    for sample in scores.samples:
        reasons = scores.looks[sample.name].reasons
        values = scores.values.get(sample.name, {})
        verdict = f"INVALID: {', '.join(reasons)}" if reasons else "valid"
        known = [len(sample.clip_lengths), sum(sample.clip_lengths)]
        rows.append(
            [sample.name, benchmark_of(sample.name).name, verdict, *known, *(values.get(metric, "") for metric in metrics)]
        )
    for name, reason in scores.unscored.items():
        rows.append([name, benchmark_of(name).name, f"not scored: {reason}"])
    return _as_csv(rows)


def clips_csv(scores: Scores) -> bytes:
    """Return a row for each clip of each valid video, with our own measures."""
    rows: list[list[object]] = []
    for sample in scores.valid():
        values = scores.looks[sample.name].per_clip()
        rows = rows or [["name", "clip", *values]]
        for clip, numbers in enumerate(zip(*values.values(), strict=True), start=1):
            rows.append([sample.name, clip, *("" if number is None else number for number in numbers)])
    return _as_csv(rows)


def as_json(scores: Scores) -> bytes:
    """Return all numbers as JSON."""
    rate = scores.checks.pass_rate()
    facts = {
        "benchmarks": {
            benchmark.name or "other": {
                "videos": len(members),
                "invalid": sum(sample.name not in scores.values for sample in members),
                "means": scores.sets[benchmark.name],
                "videos_of_means": scores.counts[benchmark.name],
            }
            for benchmark, members in scores.groups().items()
        },
        "absent": scores.absent,
        "unscored": scores.unscored,
        "check_list": {
            "judged": len(scores.checks.judged()),
            "passed": len(scores.checks.passed()),
            "pass_rate": rate,
            "published_pass_rate": PUBLISHED_PASS_RATE,
            "failed": list(scores.checks.failed),
            "outdated": list(scores.checks.outdated),
        },
        "videos": {
            sample.name: {
                "sha256": sample.sha256,
                "invalid": scores.looks[sample.name].reasons,
                "notes": list(scores.looks[sample.name].report["notes"]),
                "values": scores.values.get(sample.name, {}),
                "frames_compared": scores.compared.get(sample.name),
                "per_clip": {} if scores.looks[sample.name].reasons else scores.looks[sample.name].per_clip(),
                "answers": scores.checks.answers.get(sample.name, {}),
            }
            for sample in scores.samples
        },
    }
    return json.dumps(facts, indent=1, ensure_ascii=False).encode()


def _as_csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
