"""Tables of the page: our means beside published numbers, and what every number means."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from batch.scoring.published import LESS_IS_BETTER, PUBLISHED, VBENCH, Rows
from batch.scoring.sample import Sample
from batch.scoring.scores import Scores, metrics_of
from batch.tables.benchmarks import Benchmark

_OWN = ("colour drift", "sharpness drift", "motion x255", "largest seam")


def comparison(scores: Scores, benchmark: Benchmark, members: Sequence[Sample]) -> str:
    """Return the table of one benchmark: this folder's means, and the published rows."""
    means = scores.sets[benchmark.name]
    asked = metrics_of(benchmark)
    metrics = (*asked, *(metric for metric in means if metric not in (*asked, *_OWN)))
    valid = [sample for sample in members if sample.name in scores.values]
    head = "".join(f"<th>{_heading(metric)}</th>" for metric in (*metrics, *_OWN))
    counts = scores.counts.get(benchmark.name, {})
    cells = "".join(_cell(scores, means, metric, counts.get(metric, len(valid)), len(valid)) for metric in (*metrics, *_OWN))
    rows = [f'<tr class="ours"><th>{_whose(benchmark, len(valid), len(members))}</th>{cells}</tr>']
    source, published = _published(benchmark, members)
    rows += [_published_row(method, values, asked, len(metrics) + len(_OWN)) for method, values in published.items()]
    unit = "VBench in percent." if asked == VBENCH else ""
    return (
        f"<section><h2>{escape(benchmark.title)}: means</h2><p>{unit}{source}</p>"
        f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        "</section>"
    )


def _published(benchmark: Benchmark, members: Sequence[Sample]) -> tuple[str, Rows]:
    """Return where the published rows are from, and the rows; why there are none, if videos are shorter than the paper's."""
    if benchmark.name not in PUBLISHED:
        return "", {}
    table, _, rows = PUBLISHED[benchmark.name]
    shorter = sum(len(sample.clip_lengths) < benchmark.num_clips for sample in members)
    if not shorter:
        return f" Published: SVI (arXiv:2510.09212), {table}; measured by its authors on their own images and prompts.", rows
    fewer = f"{shorter} of {len(members)} here {'has' if shorter == 1 else 'have'} fewer"
    return f" No published rows: the paper's videos are as long as {benchmark.num_clips} clips, and {fewer}.", {}


def _published_row(method: str, values: Sequence[float], metrics: tuple[str, ...], num_columns: int) -> str:
    form = ".2f" if metrics == VBENCH else "g"
    numbers = "".join(f"<td>{value:{form}}</td>" for value in values) + "<td></td>" * (num_columns - len(values))
    return f'<tr class="published"><th>{escape(method)} <i>published</i></th>{numbers}</tr>'


def _whose(benchmark: Benchmark, num_valid: int, num_all: int) -> str:
    """Say over how many videos our row is, and how many the paper has."""
    left_out = f", {num_all - num_valid} INVALID left out" if num_valid < num_all else ""
    paper = f" (the paper: {benchmark.num_samples})" if benchmark.name in PUBLISHED else ""
    return f"this folder, {num_valid} video{'' if num_valid == 1 else 's'}{paper}{left_out}"


def _heading(metric: str) -> str:
    arrow = "" if metric in _OWN else " ↓" if metric in LESS_IS_BETTER else " ↑"
    return escape(metric.replace("_", " ")) + arrow


def _cell(scores: Scores, means: dict[str, float], metric: str, num_measured: int, num_valid: int) -> str:
    """Return a mean, with the number of its videos if they are not all valid ones."""
    if metric in means:
        number = f"{100 * means[metric]:.2f}" if metric in VBENCH else f"{means[metric]:.3g}"
        few = f' <small title="over {num_measured} of {num_valid} videos">n = {num_measured}</small>'
        return f"<td>{number}{few if num_measured < num_valid else ''}</td>"
    reason = scores.absent.get(metric, "no valid video has it")
    return f'<td class="absent" title="{escape(reason)}">absent</td>'


def not_measured(scores: Scores) -> str:
    """Return what was not measured and why, and whose answers do not count."""
    absent = "".join(
        f"<li><b>{escape(', '.join(metrics).replace('_', ' '))}</b>: {escape(reason)}</li>"
        for reason, metrics in scores.missing().items()
    )
    outdated = "".join(f"<li>{escape(name)}: the video has changed since it was judged</li>" for name in scores.checks.outdated)
    return "".join(
        f"<h3>{title}</h3><ul>{items}</ul>"
        for title, items in (("Not measured", absent), ("Answers that do not count", outdated))
        if items
    )
