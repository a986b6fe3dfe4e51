"""An estimate as a picture: the clips to scale on a time axis, stored and new ones in different colours."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..look.filmstrip import BACKGROUND, FAINT, MARGIN, TEXT, fitted
from ..look.plots import AXIS, LINE
from ..store.clip_times import duration
from .run_estimate import RunEstimate
from .text import count, head_line

WIDTH = 1280
STORED, NEW, UNKNOWN, CUT = "stored", "to make", "not known", "cut"
_EDGE = {STORED: (52, 211, 153), NEW: LINE, UNKNOWN: FAINT, CUT: (251, 191, 36)}
_FILL = {STORED: (6, 78, 59), NEW: (12, 74, 110), UNKNOWN: (63, 63, 70)}
_CLIPS_A_BAND, _BAR_HEIGHT, _BAND_HEIGHT = 6, 74, 124
_MAX_BANDS, _FIRST_BANDS, _LAST_BANDS = 12, 5, 3  # of a longer video only the first and the last are drawn
_TICKS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400, 604800)
_LEFT, _RIGHT = MARGIN + 4, WIDTH - MARGIN - 4
_font = ImageFont.load_default


@dataclass(frozen=True)
class Block:
    """A section of the video.

    Attributes:
        begin: in seconds.
        seconds: its length.
        state: STORED, NEW or UNKNOWN.
        title: the number of a clip, or a word.
        note: text beside the title.
        text: text below.
        held: seconds of its last frame held.
        is_cut: it starts from an anchor, after other clips.
    """

    begin: float
    seconds: float
    state: str
    title: str
    note: str
    text: str
    held: float = 0.0
    is_cut: bool = False

    @property
    def end(self) -> float:
        return self.begin + self.seconds


def draw_estimate(estimate: RunEstimate) -> np.ndarray:
    """Return the picture [H, 1280, 3] uint8 of an estimate. A long one shows the first and last clips below a strip of all."""
    blocks = _blocks(estimate)
    bands = _bands(blocks)
    scale = _usual_scale(bands)
    left_out: list[Sequence[Block]] = []
    if len(bands) > _MAX_BANDS:
        left_out, bands = bands[_FIRST_BANDS:-_LAST_BANDS], bands[:_FIRST_BANDS] + bands[-_LAST_BANDS:]
    has_strip = bool(left_out) or len(bands) > 1
    top = 74 + (58 if has_strip else 0)
    height = top + len(bands) * _BAND_HEIGHT + (34 if left_out else 0) + 34
    picture = Image.new("RGB", (WIDTH, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _draw_head(draw, estimate)
    if has_strip:
        _draw_strip(picture, 74, blocks)
    for index, band in enumerate(bands):
        if left_out and index == _FIRST_BANDS:
            between = f"... {count(sum(map(len, left_out)), 'clip')} between, in the strip above ..."
            draw.text((WIDTH / 2, top + 8), between, fill=FAINT, font=_font(15), anchor="ma")
            top += 34
        _draw_band(picture, top, band, scale)
        top += _BAND_HEIGHT
    _draw_legend(draw, height - 28, blocks)
    return np.asarray(picture)


def draw_message(title: str, text: str) -> np.ndarray:
    """Return a picture [H, 1280, 3] uint8 of a message, in place of an estimate."""
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines = _wrapped(probe, text, 16, _RIGHT - _LEFT, 12)
    picture = Image.new("RGB", (WIDTH, 64 + 24 * len(lines)), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((_LEFT, 16), title, fill=_EDGE[CUT], font=_font(20))
    for index, line in enumerate(lines):
        draw.text((_LEFT, 50 + 24 * index), line, fill=TEXT, font=_font(16))
    return np.asarray(picture)


def _blocks(estimate: RunEstimate) -> list[Block]:
    """Return the continued video, if any, and one block per clip."""
    rate, start = estimate.run.coding.frame_rate, estimate.run.start_seconds
    blocks = [Block(0.0, start, STORED, "beginning", "", "the video that is continued")] if start else []
    for clip in estimate.clips:
        request = clip.request
        state = {True: STORED, False: NEW, None: UNKNOWN}[clip.is_stored]
        title, note, text = str(request.index + 1), clip.options, request.spec.prompt
        held, is_cut = clip.showing.hold / rate, request.starts_anew and clip.first_frame > 0
        blocks.append(Block(clip.begin, clip.num_frames / rate, state, title, note, text, held, is_cut))
    return blocks


def _bands(blocks: Sequence[Block]) -> list[Sequence[Block]]:
    """Return the blocks line by line, about the same number on each."""
    per_band = -(-len(blocks) // -(-len(blocks) // _CLIPS_A_BAND))
    return [blocks[start : start + per_band] for start in range(0, len(blocks), per_band)]


def _usual_scale(bands: Sequence[Sequence[Block]]) -> float:
    """Return the pixels per second at which a typical full line fills the picture."""
    full = [band[-1].end - band[0].begin for band in bands if len(band) == len(bands[0])]
    return (_RIGHT - _LEFT) / median(full)


def _draw_head(draw: ImageDraw.ImageDraw, estimate: RunEstimate) -> None:
    draw.text((_LEFT, 14), fitted(draw, head_line(estimate), _font(20), _RIGHT - _LEFT), fill=TEXT, font=_font(20))
    if estimate.warnings:
        number = count(len(estimate.warnings), "warning")
        draw.text((_LEFT, 44), number, fill=_EDGE[CUT], font=_font(15))
        left = _LEFT + draw.textlength(number + "   ", font=_font(15))
        draw.text((left, 44), fitted(draw, estimate.warnings[0], _font(15), _RIGHT - left), fill=FAINT, font=_font(15))
    elif estimate.time is not None:
        draw.text((_LEFT, 44), f"{duration(estimate.time.seconds)} a clip: {estimate.time.source}", fill=FAINT, font=_font(15))


def _draw_strip(picture: Image.Image, top: int, blocks: Sequence[Block]) -> None:
    """Draw the whole video on one line, one state per column of pixels."""
    room, total = _RIGHT - _LEFT, blocks[-1].end
    begins = [block.begin for block in blocks]
    columns = np.empty((16, room, 3), np.uint8)
    for x in range(room):
        columns[:, x] = _EDGE[blocks[bisect_right(begins, (x + 0.5) * total / room) - 1].state]
    picture.paste(Image.fromarray(columns), (_LEFT, top))
    draw = ImageDraw.Draw(picture)
    for block in blocks:
        x = _LEFT + block.begin * room / total
        if block.is_cut:
            draw.line([(x, top - 4), (x, top + 19)], fill=_EDGE[CUT], width=1)
        elif block.begin and block.seconds * room / total >= 4:
            draw.line([(x, top), (x, top + 15)], fill=BACKGROUND, width=1)
    _draw_axis(draw, top + 20, 0.0, total, room / total)


def _draw_band(picture: Image.Image, top: int, band: Sequence[Block], scale: float) -> None:
    draw = ImageDraw.Draw(picture)
    bar_top, origin = top + 18, band[0].begin
    scale = min(scale, (_RIGHT - _LEFT) / (band[-1].end - origin))
    for block in band:
        left = _LEFT + (block.begin - origin) * scale
        _draw_bar(picture, (round(left), bar_top, max(round(left) + 1, round(left + block.seconds * scale) - 2)), block, scale)
        if block.is_cut:
            draw.line([(left, bar_top - 6), (left, bar_top + _BAR_HEIGHT + 4)], fill=_EDGE[CUT], width=2)
            draw.text((left, bar_top - 19), "cut", fill=_EDGE[CUT], font=_font(12))
    _draw_axis(draw, bar_top + _BAR_HEIGHT + 4, origin, band[-1].end, scale)


def _draw_bar(picture: Image.Image, place: tuple[int, int, int], block: Block, scale: float) -> None:
    """Draw one block at (left, top, right), with as much of its text as fits."""
    left, top, right = place
    draw = ImageDraw.Draw(picture)
    draw.rectangle([left, top, right, top + _BAR_HEIGHT - 1], fill=_FILL[block.state])
    held = round(block.held * scale)
    if held >= 2:
        _draw_hatching(picture, (max(left, right - held), top, right), block.state)
    draw.rectangle([left, top, right, top + 2], fill=_EDGE[block.state])
    room = right - left - 14 - (held if held < 0.5 * (right - left) else 0)
    if room < 14:
        return
    draw.text((left + 8, top + 8), fitted(draw, block.title, _font(15), room), fill=TEXT, font=_font(15))
    beside = draw.textlength(block.title + "  ", font=_font(15))
    if block.note and room - beside >= 40:
        note = fitted(draw, block.note, _font(13), room - beside)
        draw.text((left + 8 + beside, top + 10), note, fill=_EDGE[block.state], font=_font(13))
    if room >= 70:
        for index, line in enumerate(_wrapped(draw, block.text, 13, room, 2)):
            draw.text((left + 8, top + 30 + 18 * index), line, fill=(212, 212, 216), font=_font(13))


def _draw_hatching(picture: Image.Image, place: tuple[int, int, int], state: str) -> None:
    """Mark a held frame with diagonal lines over (left, top, right)."""
    left, top, right = place
    width = right - left + 1
    patch = Image.new("RGB", (width, _BAR_HEIGHT), _FILL[state])
    lines = ImageDraw.Draw(patch)
    colour = tuple((edge + 2 * fill) // 3 for edge, fill in zip(_EDGE[state], _FILL[state], strict=True))
    for x in range(-_BAR_HEIGHT, width, 9):
        lines.line([(x, _BAR_HEIGHT), (x + _BAR_HEIGHT, 0)], fill=colour, width=2)
    picture.paste(patch, (left, top))


def _draw_axis(draw: ImageDraw.ImageDraw, top: int, begin: float, end: float, scale: float) -> None:
    """Draw ticks with times from `begin` to `end` (seconds), `scale` pixels per second."""
    step = next((tick for tick in _TICKS if tick * scale >= 70), _TICKS[-1])
    draw.line([(_LEFT, top), (_LEFT + (end - begin) * scale, top)], fill=AXIS)
    for index in range(int(np.ceil(begin / step)), int(end / step) + 1):
        x = _LEFT + (index * step - begin) * scale
        draw.line([(x, top), (x, top + 4)], fill=AXIS)
        anchor = "la" if x < _LEFT + 12 else "ra" if x > _RIGHT - 12 else "ma"
        draw.text((x, top + 6), _clock(index * step), fill=FAINT, font=_font(12), anchor=anchor)


def _draw_legend(draw: ImageDraw.ImageDraw, top: int, blocks: Sequence[Block]) -> None:
    left = float(_LEFT)
    for state in [state for state in (STORED, NEW, UNKNOWN) if any(block.state == state for block in blocks)]:
        draw.rectangle([left, top + 3, left + 12, top + 14], fill=_FILL[state])
        draw.rectangle([left, top + 3, left + 12, top + 5], fill=_EDGE[state])
        draw.text((left + 19, top), state, fill=FAINT, font=_font(14))
        left += 19 + draw.textlength(state, font=_font(14)) + 24
    if any(block.held for block in blocks):
        for x in range(0, 12, 4):
            draw.line([(left + x, top + 14), (left + x + 5, top + 3)], fill=FAINT, width=1)
        draw.text((left + 24, top), "last frame held", fill=FAINT, font=_font(14))


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font_size: int, width: float, max_lines: int) -> list[str]:
    """Return `text` in at most `max_lines` lines of `width` pixels, shortened with an ellipsis."""
    words, font = text.split(), _font(font_size)
    lines: list[str] = []
    while words and len(lines) < max_lines - 1:
        lengths = accumulate(draw.textlength(word + " ", font=font) for word in words)
        fitting = max(1, sum(length <= width for length in lengths))
        lines.append(fitted(draw, " ".join(words[:fitting]), font, width))
        words = words[fitting:]
    return lines + ([fitted(draw, " ".join(words), font, width)] if words else [])


def _clock(seconds: float) -> str:
    """Return a time as m:ss, with hours and half seconds if there are any."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    rest = f"{rest:04.1f}" if rest % 1 else f"{int(rest):02d}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"
