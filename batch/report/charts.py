"""Line charts over clip numbers as SVG: a thin line for each video, a thick one for their mean."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import fmean

Line = Sequence[float | None]  # a value for each clip; None leaves a gap

WIDTH, HEIGHT = 340, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 30, 24
_DOT = 2  # radius


def chart(title: str, lines: Sequence[Line], limit: float | None = None) -> str:
    """Return a chart of `lines`; `limit` is drawn as a dashed line if it is not far outside the values."""
    longest = max(len(line) for line in lines)
    known = [value for line in lines for value in line if value is not None]
    if not known:
        return ""
    low, high = min(*known, 0.0), max(*known, 0.0)
    if limit is not None and limit <= 2 * high:
        high = max(high, limit)
    else:
        limit = None
    scale = _Scale(low, high if high > low else low + 1.0, longest)
    parts = [f'<text class="title" x="8" y="18">{escape(title)}</text>', _axes(scale, longest)]
    if limit is not None:
        y = scale.y(limit)
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    if len(lines) > 1:
        parts += [_path(line, scale, "one") for line in lines]
    parts.append(_path(_mean(lines, longest), scale, "mean"))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


class _Scale:
    def __init__(self, low: float, high: float, num_clips: int) -> None:
        self.low, self.high, self.steps = low, high, max(1, num_clips - 1)

    def x(self, clip: int) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * clip / self.steps

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - self.low) / (self.high - self.low)


def _axes(scale: _Scale, num_clips: int) -> str:
    bottom = HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}"/>']
    ends = (scale.low, scale.high)
    has_room = all(abs(scale.y(0.0) - scale.y(end)) > 12 for end in ends)  # for a number at 0 between them
    parts += [
        f'<text class="tick" x="{_LEFT - 6}" y="{scale.y(value) + 4:.1f}" text-anchor="end">{value:.2g}</text>'
        for value in ((*ends, 0.0) if has_room else ends)
    ]
    parts.append(f'<text class="tick" x="{_LEFT}" y="{HEIGHT - 7}">clip 1</text>')
    if num_clips > 1:
        parts.append(f'<text class="tick" x="{WIDTH - _RIGHT}" y="{HEIGHT - 7}" text-anchor="end">{num_clips}</text>')
    return "".join(parts)


def _path(line: Line, scale: _Scale, kind: str) -> str:
    """Return a line with a gap where a value is missing; points that stand alone are drawn as small circles."""
    drawn, dots, pen_is_down = [], [], False
    for clip, value in enumerate(line):
        if value is None:
            pen_is_down = False
            continue
        place = f"{scale.x(clip):.1f} {scale.y(value):.1f}"
        drawn.append(f"{'L' if pen_is_down else 'M'}{place}")
        alone = not pen_is_down and (clip + 1 == len(line) or line[clip + 1] is None)
        dots += [f"M{place}m-{_DOT} 0a{_DOT} {_DOT} 0 1 0 {2 * _DOT} 0a{_DOT} {_DOT} 0 1 0 -{2 * _DOT} 0"] if alone else []
        pen_is_down = True
    return f'<path class="{kind}" d="{"".join(drawn + dots)}"/>'


def _mean(lines: Sequence[Line], longest: int) -> Line:
    """Return the mean of the lines at each clip, over those that have a value there."""
    columns = [[line[clip] for line in lines if clip < len(line)] for clip in range(longest)]
    known = [[value for value in column if value is not None] for column in columns]
    return [fmean(values) if values else None for values in known]
