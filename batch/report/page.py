"""The page: filmstrips, check list, tables beside the published ones, and charts over the clips."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from batch.report.charts import chart
from batch.report.tables import comparison, not_measured
from batch.scoring.check_list import PUBLISHED_PASS_RATE, PUBLISHED_SOURCE, QUESTIONS
from batch.scoring.look import VideoLook
from batch.scoring.published import PUBLISHED
from batch.scoring.sample import Sample
from batch.scoring.scores import Scores
from batch.tables.benchmarks import Benchmark
from svi_core.look.drift import SEAM_JUMP

_FOLDER = Path(__file__).parent
_LIMITS = {"colour drift": 0.1, "seam": SEAM_JUMP}


def page(scores: Scores, title: str, made: str, videos: str) -> bytes:
    """Return the page as HTML without any outside part.

    Args:
        scores: all numbers.
        title: of the page.
        made: when and from what, in a few words.
        videos: where the videos are, relative to the page, for links: ".." for instance.
    """
    groups = scores.groups()
    checked = [sample for benchmark, members in groups.items() if _has_check_list(benchmark) for sample in members]
    return (
        Template((_FOLDER / "page.html").read_text(encoding="utf-8"))
        .substitute(
            title=escape(title),
            made=escape(made),
            style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
            script=(_FOLDER / "page.js").read_text(encoding="utf-8"),
            facts=_script_data(_facts(scores, checked)),
            counts=escape(_counts(scores)),
            bar=_bar() if checked else "",
            strips="".join(_group(scores, benchmark, members, videos) for benchmark, members in groups.items()),
            unscored=_unscored(scores),
            tables="".join(comparison(scores, benchmark, members) for benchmark, members in groups.items()),
            charts="".join(_charts(scores, benchmark, members) for benchmark, members in groups.items()),
            not_measured=not_measured(scores),
        )
        .encode()
    )


def _has_check_list(benchmark: Benchmark) -> bool:
    """Whether people judge its videos: all but those of the paper's benchmarks, where numbers do."""
    return benchmark.name not in PUBLISHED


def _counts(scores: Scores) -> str:
    invalid = len(scores.samples) - len(scores.valid())
    parts = [_number_of(len(scores.samples), "video"), f"{invalid} INVALID" if invalid else "none INVALID"]
    parts += [f"{len(scores.unscored)} not scored"] if scores.unscored else []
    return ", ".join(parts)


def _facts(scores: Scores, checked: Sequence[Sample]) -> dict[str, object]:
    """Return what the script needs: the cases to judge, and what was said of them before."""
    return {
        "questions": list(QUESTIONS),
        "counted": list(scores.checks.cases),
        "failed": list(scores.checks.failed),
        "cases": {
            sample.name: {"sha256": sample.sha256, "answers": scores.checks.answers.get(sample.name, {})} for sample in checked
        },
    }


def _script_data(facts: object) -> str:
    return json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c")


def _bar() -> str:
    return (
        '<div id="bar"><span id="rate"></span><span class="source">published: '
        f'<a href="{PUBLISHED_SOURCE}">{PUBLISHED_PASS_RATE:.0%} of 14 cases</a></span>'
        '<button id="save" type="button">Save check list</button></div>'
    )


# ------------------------------------------------------------------------------------------------------- filmstrips


def _group(scores: Scores, benchmark: Benchmark, members: Sequence[Sample], videos: str) -> str:
    cards = "".join(_card(scores, sample, _has_check_list(benchmark), videos) for sample in members)
    return f'<section class="strips"><h2>{escape(benchmark.title)} <small>{len(members)}</small></h2>{cards}</section>'


def _card(scores: Scores, sample: Sample, has_check_list: bool, videos: str) -> str:
    look = scores.looks[sample.name]
    width, height = look.strip_size
    image = base64.b64encode(look.strip).decode()
    parts = [
        f'<article data-name="{escape(sample.name)}"><header>',
        f'<a href="{escape(videos)}/{quote(sample.video.name)}">{escape(sample.name)}</a>{_badges(scores, sample)}</header>',
        f'<img src="data:image/jpeg;base64,{image}" width="{width}" height="{height}" '
        f'alt="{look.columns} frames spread over {escape(sample.name)}">',
        _notes(look),
        _prompts(sample),
        _check_list(sample) if has_check_list else "",
        "</article>",
    ]
    return "".join(parts)


def _badges(scores: Scores, sample: Sample) -> str:
    look = scores.looks[sample.name]
    if look.reasons:
        return f'<b class="bad">INVALID: {escape(", ".join(look.reasons))}</b>'
    values = scores.values[sample.name]
    badges = [_number_of(len(sample.clip_lengths), "clip")]
    if "colour drift" in values:
        colour = values["colour drift"]
        badges.append(_badge(f"colour drift {colour:.3f}", colour > _LIMITS["colour drift"]))
    if "largest seam" in values:
        badges.append(_badge(f"largest seam {values['largest seam']:.2f}", values["largest seam"] > SEAM_JUMP))
    if sample.name in scores.compared:
        badges.append(f"PSNR over {scores.compared[sample.name]} of {sum(sample.clip_lengths)} frames")
    return "".join(f"<span>{badge}</span>" for badge in badges)


def _badge(text: str, is_bad: bool) -> str:
    return f'<b class="bad">{text}</b>' if is_bad else text


def _number_of(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _notes(look: VideoLook) -> str:
    """Return what the measures of a valid video make worth a look, such as a clip that stands still."""
    notes = [] if look.reasons else look.report["notes"]
    return f'<ul class="findings">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>' if notes else ""


def _prompts(sample: Sample) -> str:
    if not sample.prompts:
        return ""
    items = "".join(f"<li>{escape(prompt)}</li>" for prompt in sample.prompts)
    one = len(sample.prompts) == 1
    return f"<details><summary>{'the prompt' if one else f'{len(sample.prompts)} prompts'}</summary><ol>{items}</ol></details>"


def _check_list(sample: Sample) -> str:
    """Return two buttons for each question; the script fills them in."""
    rows = "".join(
        f'<fieldset data-question="{key}"><legend title="{escape(meaning)}">{key}</legend>'
        f'<button type="button" value="yes" aria-pressed="false" title="{escape(meaning)}">✓</button>'
        f'<button type="button" value="no" aria-pressed="false" title="not so: {escape(meaning)}">✗</button></fieldset>'
        for key, meaning in QUESTIONS.items()
    )
    return f'<div class="checks" data-case="{escape(sample.name)}">{rows}<span class="result"></span></div>'


def _unscored(scores: Scores) -> str:
    items = "".join(f"<li><b>{escape(name)}</b>: {escape(reason)}</li>" for name, reason in scores.unscored.items())
    return f"<section><h2>Not scored</h2><ul>{items}</ul></section>" if items else ""


# ----------------------------------------------------------------------------------------------------------- charts


def _charts(scores: Scores, benchmark: Benchmark, members: Sequence[Sample]) -> str:
    """Return the charts of a benchmark's valid videos with several clips."""
    lines = [scores.looks[sample.name].per_clip() for sample in members if sample.name in scores.values]
    lines = [line for line in lines if len(next(iter(line.values()))) > 1]
    if not lines:
        return ""
    drawn = "".join(chart(name, [line[name] for line in lines], _LIMITS.get(name)) for name in lines[0])
    few = "" if len(lines) == 1 else f" Thin: each of {len(lines)} videos; thick: their mean."
    return (
        f"<section><h2>{escape(benchmark.title)}: over the clips</h2>"
        f'<p>Our own measures, without a network.{few} Dashed: a limit of ours.</p><div class="charts">{drawn}</div></section>'
    )
