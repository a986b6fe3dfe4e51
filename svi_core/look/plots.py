"""Small line charts for reports, drawn with Pillow, which ComfyUI installs."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND, AXIS, TEXT, LINE = (24, 24, 27), (82, 82, 91), (228, 228, 231), (56, 189, 248)
PANEL = (420, 200)
PADDING = 44
_COLUMNS = 2


def draw_panels(series: Mapping[str, Sequence[float | None]]) -> np.ndarray:
    """Return a picture [H, W, 3] uint8 with one chart per entry of `series`: values over clip numbers from 1 on.

    None leaves a gap. Each chart has its own scale, with its lowest and highest value written at the axis.
    """
    rows = -(-len(series) // _COLUMNS)
    picture = Image.new("RGB", (PANEL[0] * _COLUMNS, PANEL[1] * rows), BACKGROUND)
    for index, (title, values) in enumerate(series.items()):
        corner = (index % _COLUMNS * PANEL[0], index // _COLUMNS * PANEL[1])
        _draw_panel(ImageDraw.Draw(picture), corner, title, values)
    return np.asarray(picture)


def _draw_panel(draw: ImageDraw.ImageDraw, corner: tuple[int, int], title: str, values: Sequence[float | None]) -> None:
    left, top = corner[0] + PADDING + 16, corner[1] + PADDING
    right, bottom = corner[0] + PANEL[0] - 16, corner[1] + PANEL[1] - 28
    font = ImageFont.load_default(13)
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    span = high - low or 1.0
    draw.text((corner[0] + 16, corner[1] + 12), title, fill=TEXT, font=ImageFont.load_default(16))
    draw.line([(left, top), (left, bottom), (right, bottom)], fill=AXIS)
    for value, height in ((high, top), (low, bottom)):
        draw.text((left - 6, height), f"{value:.3g}", fill=TEXT, font=font, anchor="rm")
    draw.text((left, bottom + 6), "clip 1", fill=TEXT, font=font)
    draw.text((right, bottom + 6), str(len(values)), fill=TEXT, font=font, anchor="ra")
    steps = max(1, len(values) - 1)
    points = [
        None if value is None else (left + (right - left) * i / steps, bottom - (bottom - top) * (value - low) / span)
        for i, value in enumerate(values)
    ]
    for start, end in itertools.pairwise(points):
        if start and end:
            draw.line([start, end], fill=LINE, width=2)
    for point in filter(None, points):
        draw.ellipse([point[0] - 3, point[1] - 3, point[0] + 3, point[1] + 3], fill=LINE)
