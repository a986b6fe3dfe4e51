"""Charts drawn with Pillow, which ComfyUI installs: lines over a logarithmic axis, and named bars."""

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from svi_core.look.plots import AXIS, BACKGROUND, TEXT

COLOURS = ((56, 189, 248), (251, 146, 60), (163, 230, 53))
SIZE, MARGIN = (900, 480), (110, 70, 60, 40)  # pixels: left, top, bottom, right


def draw_lines(title: str, x_label: str, y_label: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> Image.Image:
    """Return a picture of `lines` (points by name): x on a logarithmic scale, y from 0 on."""
    picture = Image.new("RGB", SIZE, BACKGROUND)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    left, top, bottom, right = MARGIN[0], MARGIN[1], SIZE[1] - MARGIN[2], SIZE[0] - MARGIN[3]
    xs = sorted({x for points in lines.values() for x, _ in points})
    highest = 1.08 * max(y for points in lines.values() for _, y in points)
    span = math.log(xs[-1] / xs[0]) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * math.log(x / xs[0]) / span, bottom - (bottom - top) * y / highest

    draw.text((left, 16), title, fill=TEXT, font=ImageFont.load_default(20))
    draw.text((left, top - 24), y_label, fill=TEXT, font=font)
    draw.text((right, SIZE[1] - 26), x_label, fill=TEXT, font=font, anchor="ra")
    for x in xs:
        draw.line([place(x, 0), place(x, highest)], fill=AXIS)
        draw.text((place(x, 0)[0], bottom + 8), f"{x:g}", fill=TEXT, font=font, anchor="ma")
    for tick in _ticks(highest):
        draw.line([(left, place(1, tick)[1]), (right, place(1, tick)[1])], fill=AXIS)
        draw.text((left - 10, place(1, tick)[1]), f"{tick:g}", fill=TEXT, font=font, anchor="rm")
    for points, colour in zip(lines.values(), COLOURS, strict=False):
        _draw_line(draw, [place(x, y) for x, y in sorted(points)], colour)
    _write_names(draw, list(lines), right)
    return picture


def _draw_line(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: tuple[int, int, int]) -> None:
    draw.line(points, fill=colour, width=3)
    for x, y in points:
        draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=colour)


def _write_names(draw: ImageDraw.ImageDraw, names: Sequence[str], right: int) -> None:
    """Write the lines' names below the title, each in its line's colour, the last one ending at `right`."""
    font = ImageFont.load_default(18)
    for name, colour in reversed(list(zip(names, COLOURS, strict=False))):
        draw.text((right, MARGIN[1] - 26), name, fill=colour, font=font, anchor="ra")
        right -= int(draw.textlength(name, font)) + 8
        draw.line([(right - 22, MARGIN[1] - 15), (right, MARGIN[1] - 15)], fill=colour, width=3)
        right -= 44


def draw_bars(title: str, values: Mapping[str, float]) -> Image.Image:
    """Return a picture of `values` as horizontal bars in their order, each with its name and number."""
    row, left, right = 34, 420, 110
    picture = Image.new("RGB", (SIZE[0] + 200, 70 + row * len(values)), BACKGROUND)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    draw.text((16, 16), title, fill=TEXT, font=ImageFont.load_default(20))
    highest = max(*values.values(), 1e-12)
    for index, (name, value) in enumerate(values.items()):
        top, length = 58 + row * index, (picture.width - left - right) * value / highest
        draw.text((left - 12, top + 2), name[:52], fill=TEXT, font=font, anchor="ra")
        draw.rectangle([left, top, left + length, top + row - 12], fill=COLOURS[0])
        draw.text((left + length + 8, top + 2), f"{value:.3g}", fill=TEXT, font=font)
    return picture


def _ticks(highest: float) -> list[float]:
    """Return four to eight round values from 0 to `highest`."""
    step = 10 ** math.floor(math.log10(highest / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if highest / (step * factor) <= 8)
    return [step * index for index in range(int(highest / step) + 1)]
