"""Line charts as SVG, for reports in HTML."""

import html
import math
from collections.abc import Mapping, Sequence

COLOURS = ("#38bdf8", "#f472b6", "#a3e635", "#fbbf24", "#c084fc", "#fb7185", "#2dd4bf", "#94a3b8")
WIDTH, HEIGHT, LEFT, BOTTOM = 460, 220, 56, 28
Points = Sequence[tuple[float, float | None]]


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
                f'<text x="{LEFT + 4 + 90 * (index % 4)}" y="{38 + 13 * (index // 4)}" fill="{colour}">{escaped(name)}</text>'
            )
    axes = (
        f'<text x="{LEFT}" y="16" fill="#e4e4e7" font-size="14">{escaped(title)}</text>'
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


def escaped(value: object) -> str:
    """Return `value` as text for HTML."""
    return html.escape(str(value), quote=True)
