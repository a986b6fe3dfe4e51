"""Line charts with limits under a verdict, drawn with Pillow, which ComfyUI installs."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND, AXIS, TEXT, LINE = (24, 24, 27), (82, 82, 91), (228, 228, 231), (56, 189, 248)
FAINT, LIMIT, GOOD, BAD = (161, 161, 170), (180, 140, 50), (74, 222, 128), (248, 113, 113)
PANEL = (420, 200)
PADDING = 44
_COLUMNS = 2
_MAX_DOTS = 60  # clips; dots of more would hide the line
_MAX_NOTES = 5
_DASH, _NOTE_HEIGHT, _HEAD_HEIGHT = 6, 20, 52

Point = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """One chart: values over clip numbers from 1 on.

    Attributes:
        title: with its unit.
        values: None leaves a gap.
        scale: lowest and highest value at the axis; it grows if values lie outside.
        low: values below it are bad, drawn in red; None for no such limit.
        high: values above it are bad.
    """

    title: str
    values: Sequence[float | None]
    scale: tuple[float, float]
    low: float | None = None
    high: float | None = None

    @property
    def span(self) -> tuple[float, float]:
        """The scale, widened to hold all values."""
        known = [value for value in self.values if value is not None]
        return min(self.scale[0], *known, self.scale[1]), max(self.scale[1], *known, self.scale[0])

    def is_bad(self, value: float) -> bool:
        """Whether a value lies beyond a limit."""
        return (self.low is not None and value < self.low) or (self.high is not None and value > self.high)


def draw_report(verdict: str, is_good: bool, notes: Sequence[str], panels: Sequence[Panel]) -> np.ndarray:
    """Return a picture [H, W, 3] uint8: the verdict, the first notes, and one chart per panel."""
    shown = [*notes[:_MAX_NOTES], *([f"and {len(notes) - _MAX_NOTES} more"] if len(notes) > _MAX_NOTES else [])]
    head = _HEAD_HEIGHT + _NOTE_HEIGHT * len(shown) + (8 if shown else 0)
    rows = -(-len(panels) // _COLUMNS)
    picture = Image.new("RGB", (PANEL[0] * _COLUMNS, head + PANEL[1] * rows), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((16, 16), verdict, fill=GOOD if is_good else BAD, font=ImageFont.load_default(20))
    for index, note in enumerate(shown):
        draw.text((16, _HEAD_HEIGHT + _NOTE_HEIGHT * index), note, fill=TEXT, font=ImageFont.load_default(14))
    for index, panel in enumerate(panels):
        corner = (index % _COLUMNS * PANEL[0], head + index // _COLUMNS * PANEL[1])
        _draw_panel(draw, corner, panel)
    return np.asarray(picture)


def _draw_panel(draw: ImageDraw.ImageDraw, corner: tuple[int, int], panel: Panel) -> None:
    left, top = corner[0] + PADDING + 16, corner[1] + PADDING
    right, bottom = corner[0] + PANEL[0] - 16, corner[1] + PANEL[1] - 28
    font = ImageFont.load_default(13)
    (low, high), num_clips = panel.span, len(panel.values)

    def height(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / ((high - low) or 1.0)

    draw.text((corner[0] + 16, corner[1] + 12), panel.title, fill=TEXT, font=ImageFont.load_default(16))
    draw.line([(left, top), (left, bottom), (right, bottom)], fill=AXIS)
    for value in (high, low):
        draw.text((left - 6, height(value)), f"{value:.3g}", fill=FAINT, font=font, anchor="rm")
    for limit in (panel.low, panel.high):
        if limit is not None:
            _draw_limit(draw, left, right, height(limit), f"{limit:.3g}")
    draw.text((left, bottom + 6), "clip 1", fill=FAINT, font=font)
    if num_clips > 1:
        draw.text((right, bottom + 6), str(num_clips), fill=FAINT, font=font, anchor="ra")
    steps = max(1, num_clips - 1)
    points = [(left + (right - left) * i / steps, v) for i, v in enumerate(panel.values)]
    for (x, value), (next_x, following) in itertools.pairwise(points):
        if value is not None and following is not None:
            draw.line([(x, height(value)), (next_x, height(following))], fill=LINE, width=2)
    for x, value in points:
        if value is not None and (num_clips <= _MAX_DOTS or panel.is_bad(value)):
            _draw_dot(draw, (x, height(value)), BAD if panel.is_bad(value) else LINE)


def _draw_limit(draw: ImageDraw.ImageDraw, left: float, right: float, height: float, text: str) -> None:
    for start in range(int(left), int(right), 2 * _DASH):
        draw.line([(start, height), (min(start + _DASH, right), height)], fill=LIMIT)
    draw.text((right, height - 2), text, fill=LIMIT, font=ImageFont.load_default(12), anchor="rb")


def _draw_dot(draw: ImageDraw.ImageDraw, point: Point, colour: tuple[int, int, int]) -> None:
    draw.ellipse([point[0] - 3, point[1] - 3, point[0] + 3, point[1] + 3], fill=colour)
