"""The report of a training run, one HTML page: curves, the error bank, sample videos."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from svi_core.files.atomic_file import write_bytes
from training.run.run_folder import begun_config, read_measurements
from training.settings.reader import config_table

COLOURS = ("#38bdf8", "#f472b6", "#a3e635", "#fbbf24", "#c084fc", "#fb7185", "#2dd4bf", "#94a3b8")
WIDTH, HEIGHT, LEFT, BOTTOM = 460, 220, 56, 28
STYLE = (
    "body{background:#18181b;color:#e4e4e7;font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
    "section{display:flex;flex-wrap:wrap;gap:16px}figure{margin:0}img,video{max-width:100%}pre{overflow-x:auto}"
    "figcaption{color:#a1a1aa}a{color:#38bdf8}"
)
Points = Sequence[tuple[float, float | None]]


def write_report(run: Path) -> Path:
    """Write `run`/report.html from the run's measurements and return its path.

    Raises:
        ValueError: the folder holds no run with measurements, or its settings cannot be read.
    """
    config = config_table(begun_config(run))
    try:
        entries = list(read_measurements(run / "metrics.jsonl"))
    except OSError as error:
        raise ValueError(f"{run} holds no run with measurements ({error.strerror}: {error.filename}).") from error
    page = _page(run, config, entries)
    write_bytes(run / "report.html", page.encode())
    return run / "report.html"


def chart(title: str, series: Mapping[str, Points]) -> str:
    """Return a line chart as SVG without the points that have no value, or nothing if no point has one."""
    known = {name: [(x, y) for x, y in points if y is not None and math.isfinite(y)] for name, points in series.items()}
    known = {name: points for name, points in known.items() if points}
    if not known:
        return ""
    xs, ys = ([point[axis] for points in known.values() for point in points] for axis in (0, 1))
    low, high = min(ys), max(ys)
    lines = []
    for index, (name, points) in enumerate(known.items()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{_place(x, min(xs), max(xs), LEFT, WIDTH - 12):.1f},{_height(y, low, high):.1f}" for x, y in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(points) == 1:
            x, y = path.split(",")
            lines.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        if len(known) > 1:
            lines.append(
                f'<text x="{LEFT + 4 + 90 * (index % 4)}" y="{38 + 13 * (index // 4)}" fill="{colour}">{_text(name)}</text>'
            )
    axes = (
        f'<text x="{LEFT}" y="16" fill="#e4e4e7" font-size="14">{_text(title)}</text>'
        f'<text x="4" y="{_height(high, low, high) + 4:.0f}">{high:.3g}</text>'
        f'<text x="4" y="{_height(low, low, high) + 4:.0f}">{low:.3g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{min(xs):.4g}</text><text x="{WIDTH - 50}" y="{HEIGHT - 8}">{max(xs):.4g}</text>'
    )
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg {size} font-size="11" fill="#a1a1aa" font-family="sans-serif">{axes}{"".join(lines)}</svg>'


def _place(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + (end - start) * (0.5 if high == low else (value - low) / (high - low))


def _height(value: float, low: float, high: float) -> float:
    return _place(value, low, high, HEIGHT - BOTTOM - 8, 52)


def _page(run: Path, config: Mapping, entries: Sequence[Mapping]) -> str:
    by_kind: dict[str, list[Mapping]] = {}
    for entry in entries:
        by_kind.setdefault(entry["kind"], []).append(entry)
    steps = by_kind.get("step", [])
    last = steps[-1] if steps else {}
    parts = [
        f"<h1>{_text(config.get('name') or run.name)}</h1>",
        f"<p>{last.get('step', 0)} steps; base {_text(config['model']['path'])}, layout {_text(config['data']['layout'])}, "
        f"preset {_text(config['preset'] or 'none')}.</p>",
        *(f"<p>Began from {_text(entry['text'])}.</p>" for entry in by_kind.get("start", [])),
        f"<section>{_step_charts(steps)}{_validation_chart(by_kind.get('validation', []))}</section>",
        _bank_part(by_kind.get("bank", [])),
        _samples_part(by_kind.get("sample", [])),
        f"<h2>Settings</h2><pre>{_text(json.dumps(config, indent=1))}</pre>",
    ]
    head = f"<!doctype html><meta charset='utf-8'><title>{_text(run.name)}</title><style>{STYLE}</style>"
    return head + "".join(parts)


def _step_charts(steps: Sequence[Mapping]) -> str:
    def curve(name: str) -> Points:
        return [(entry["step"], entry.get(name)) for entry in steps]

    injected = {name: _smooth(curve(f"injected_{name}")) for name in ("image", "latent", "noise", "clean")}
    return "".join(
        (
            chart("loss (weighted, and its mean over 25 steps)", {"step": curve("loss"), "mean": _smooth(curve("loss"))}),
            chart("gradient norm before clipping", {"norm": curve("gradient_norm")}),
            chart("learning rate", {"rate": curve("learning_rate")}),
            chart("share of examples with an error (mean over 25 steps)", injected),
            chart("seconds per step", {"seconds": curve("seconds")}),
        )
    )


def _smooth(points: Points, window: int = 25) -> Points:
    values = [y for _, y in points if y is not None]
    starts = (max(0, index + 1 - window) for index in range(len(values)))
    means = [sum(values[start : index + 1]) / (index + 1 - start) for index, start in enumerate(starts)]
    return list(zip((x for x, y in points if y is not None), means, strict=True))


def _validation_chart(validations: Sequence[Mapping]) -> str:
    sigmas = [key for key in (validations[-1] if validations else {}) if key not in ("kind", "step")]
    series = {f"sigma {sigma}": [(entry["step"], entry.get(sigma)) for entry in validations] for sigma in sigmas}
    return chart("held-out loss by noise level", series)


def _bank_part(banks: Sequence[Mapping]) -> str:
    if not banks:
        return ""
    last = {bank["shape"]: bank for bank in banks}
    charts = []
    for shape, bank in last.items():
        fill = list(zip(bank["sigma"], bank["fill"], strict=True))
        ratio = list(zip(bank["sigma"], bank["error_to_signal"], strict=True))
        charts.append(chart(f"entries by noise level, latents {shape}", {"entries": fill}))
        charts.append(chart("error-to-signal ratio by noise level", {"ratio": ratio}))
    note = "Of the first process. Where the ratio is near 0, the model makes no errors that it could learn to correct."
    return f"<h2>Error bank</h2><p>{note}</p><section>{''.join(charts)}</section>"


def _samples_part(samples: Sequence[Mapping]) -> str:
    figures = []
    for sample in reversed(samples):
        video = sample["path"]
        strip = video.removesuffix(".mp4") + ".png"
        figures.append(
            f"<figure><img src='{_text(strip)}' alt='frames of the sample video'>"
            f"<figcaption>step {sample['step']}: <a href='{_text(video)}'>{_text(video)}</a></figcaption></figure>"
        )
    return f"<h2>Samples</h2>{''.join(figures)}" if figures else ""


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
