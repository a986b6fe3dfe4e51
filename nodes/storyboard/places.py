"""Where each clip of a storyboard stands in the text of its schedule, and which options that text sets for it."""

from dataclasses import dataclass

from ...svi_core.dry_run.storyboard import named_options
from ...svi_core.schedule.prompt_lists import PromptSplit
from ...svi_core.schedule.text import parse_schedule
from ...svi_core.schedule.written import read_written


@dataclass(frozen=True)
class Place:
    """Where a clip stands.

    Attributes:
        paragraph: number of its paragraph, from 0.
        repetition: its number among the `of` clips of that paragraph.
        line, end_line: of the paragraph, from 1.
        start, stop: of the paragraph, as a browser counts.
        beyond: the clip comes after the end of the text.
        options: that the text sets for this clip, by what names them.
        take: that the text pins.
    """

    paragraph: int
    repetition: int
    of: int
    line: int
    end_line: int
    start: int
    stop: int
    beyond: bool
    options: dict[str, str]
    take: str | None

    def as_dict(self) -> dict[str, object]:
        """Return its numbers as the browser gets them."""
        return {name: value for name, value in vars(self).items() if name not in ("options", "take")}


def places(text: str, split: str, num_clips: int) -> list[Place]:
    """Return the places of `num_clips` clips in a text; nowhere if it is not that of their schedule."""
    nowhere = Place(0, 0, 1, 1, 1, 0, 0, False, {}, None)
    if not text:
        return [nowhere] * num_clips
    kind = PromptSplit(split)
    schedule, written = parse_schedule(text, kind), read_written(text, kind)
    if len(written.units) != len(schedule.paragraphs):
        return [nowhere] * num_clips
    found, line, start = list[Place](), 1, 0
    for number, paragraph in enumerate(schedule.paragraphs):
        gap, unit = written.gaps[number], written.units[number].text
        line, start = line + num_line_ends(gap), start + utf16_length(gap)
        end_line, stop = line + num_line_ends(unit), start + utf16_length(unit)
        for repetition, spec in enumerate(paragraph.clips()):
            place = (number, repetition, paragraph.repeat, line, end_line, start, stop)
            found.append(Place(*place, False, named_options(spec), spec.take))
        line, start = end_line, stop
    last = found[-1]
    for more in range(num_clips - len(found)):
        found.append(
            Place(last.paragraph, last.of + more, last.of, last.line, last.end_line, last.start, last.stop, True, {}, None)
        )
    return found[:num_clips]


def utf16_length(text: str) -> int:
    """Return the length of `text` as a browser counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def offset_of(text: str, units: int) -> int:
    """Return the offset into `text` that a browser counts as `units`; inside a character, that of its beginning."""
    return len(text.encode("utf-16-le", "surrogatepass")[: 2 * max(0, units)].decode("utf-16-le", "ignore"))


def num_line_ends(text: str) -> int:
    """Return how many lines end in `text`."""
    return text.count("\n") + text.replace("\r\n", "").count("\r")
