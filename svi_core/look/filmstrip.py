"""Filmstrips: one row per clip with frames spread over it, its prompt and its seed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND, TEXT, FAINT = (24, 24, 27), (228, 228, 231), (161, 161, 170)
MARGIN = 12
MAX_ROWS = 100  # a longer run shows so many clips, spread evenly: browsers refuse higher pictures


@dataclass(frozen=True)
class StripRow:
    """One clip of a filmstrip: its frames [H, W, 3] uint8 from left to right, a title and a line below it."""

    frames: tuple[np.ndarray, ...]
    title: str
    subtitle: str = ""


def spread(num_frames: int, count: int) -> list[int]:
    """Return `count` frame indices spread evenly over a clip, first and last included."""
    return [int(i) for i in np.linspace(0, num_frames - 1, count).round()]


def pick_frames(frames: Iterable[np.ndarray], wanted: Sequence[int], width: int = 0) -> dict[int, np.ndarray]:
    """Return the frames with the `wanted` indices of a stream, scaled to `width` pixels (0: unscaled)."""
    indices = set(wanted)
    chosen = ((index, frame) for index, frame in enumerate(frames) if index in indices)
    return {index: _scaled(frame, width) if width else frame.copy() for index, frame in chosen}


def _scaled(frame: np.ndarray, width: int) -> np.ndarray:
    """Return a copy of `frame` [H, W, 3] that is `width` pixels wide, with the same aspect ratio."""
    size = width, round(width * frame.shape[0] / frame.shape[1])
    return np.array(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def draw_filmstrip(rows: Sequence[StripRow], frame_width: int = 240) -> np.ndarray:
    """Return the picture [H, W, 3] uint8 of `rows`: text above frames that are `frame_width` pixels wide."""
    assert rows and all(row.frames for row in rows)
    frame_height = len(_scaled(rows[0].frames[0], frame_width))
    font_size = max(14, frame_width // 14)
    font = ImageFont.load_default(font_size)
    text_height = round(font_size * 1.5)
    columns = max(len(row.frames) for row in rows)
    row_height = frame_height + text_height * (2 if any(row.subtitle for row in rows) else 1) + MARGIN
    size = (columns * (frame_width + MARGIN) + MARGIN, len(rows) * row_height + MARGIN)
    picture = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for index, row in enumerate(rows):
        top = MARGIN + index * row_height
        draw.text((MARGIN, top), fitted(draw, row.title, font, size[0] - 2 * MARGIN), fill=TEXT, font=font)
        if row.subtitle:
            draw.text(
                (MARGIN, top + text_height), fitted(draw, row.subtitle, font, size[0] - 2 * MARGIN), fill=FAINT, font=font
            )
        for column, frame in enumerate(row.frames):
            image = Image.fromarray(_scaled(frame, frame_width))
            picture.paste(image, (MARGIN + column * (frame_width + MARGIN), top + row_height - frame_height - MARGIN))
    return np.asarray(picture)


def fitted(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """Return `text` on one line of at most `width` pixels, shortened with an ellipsis."""
    text = " ".join(text.split())
    if draw.textlength(text, font=font) <= width:
        return text
    text = text[: int(width)]  # a letter takes more than a pixel
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
