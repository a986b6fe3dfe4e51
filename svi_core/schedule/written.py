"""A schedule's text as written, letter for letter: the text of each paragraph, and what stands between."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from .numbering import Mark, marks_of, without_numbers
from .paragraphs import Lines, half_width, is_break, paragraph_lines, prompt_lines
from .prompt_lists import PromptSplit, is_plain_list, is_python_list, normalised_text, python_list_items

Span = tuple[int, int]  # offsets into a text: first character, and the one behind the last
_BYTE_ORDER_MARK = "\ufeff"
_LINE_END = re.compile("\r\n|[\n\r\v\f\x85\u2028\u2029]")
_LINE_END_IN_LISTS = re.compile("\r\n|[\n\r]")


@dataclass(frozen=True)
class Unit:
    """The text of one paragraph with its options and the comments that touch it, or of one plain prompt.

    Attributes:
        text: as written.
        mark: where in it the number of a numbered prompt stands, with its signs.
    """

    text: str
    mark: Span | None = None


@dataclass(frozen=True)
class Written:
    """A whole text: ``gaps[0] + units[0].text + gaps[1] + ... + gaps[-1]``.

    Attributes:
        units: one per paragraph of the schedule.
        gaps: what stands before, between and behind them.
        split: what separates the prompts.
        is_list: a ``prompts = [...]`` file.
        is_plain: its prompts take no options.
    """

    units: tuple[Unit, ...]
    gaps: tuple[str, ...]
    split: PromptSplit
    is_list: bool
    is_plain: bool

    @property
    def newline(self) -> str:
        """How lines of the text end."""
        return "\r\n" if any("\r\n" in part for part in (*self.gaps, *(unit.text for unit in self.units))) else "\n"

    @property
    def separator(self) -> str:
        """What to write between two units: what stands between the first two, unless it is a comment or a rule."""
        between = self.gaps[1] if len(self.units) > 1 else ""
        if between.strip() in ((",",) if self.is_list else ("|",) if self.split is PromptSplit.BARS else ("",)) and between:
            return between
        if self.is_list:
            return ", "
        if self.split is PromptSplit.BARS:
            return " | "
        return self.newline * (2 if self.split is PromptSplit.PARAGRAPHS else 1)

    def span(self, index: int) -> Span:
        """Return where unit `index` stands in the whole text."""
        start = sum(map(len, self.gaps[: index + 1])) + sum(len(unit.text) for unit in self.units[:index])
        return start, start + len(self.units[index].text)


def read_written(text: str, split: PromptSplit) -> Written:
    """Return the parts of a text that :func:`svi_core.schedule.text.parse_schedule` reads.

    Raises:
        ValueError: see there.
    """
    normalised = normalised_text(text)
    is_list = is_python_list(normalised)
    if is_list:
        spans = [(span, None) for span in _literal_spans(text, normalised)]
    elif split is PromptSplit.BARS:
        spans = [(span, None) for span in _bar_spans(text, normalised)]
    else:
        spans = list(_line_spans(text, normalised, split))
    ends = [0, *(end for span, _ in spans for end in span), len(text)]
    gaps = tuple(text[start:stop] for start, stop in zip(ends[::2], ends[1::2], strict=True))
    units = tuple(Unit(text[start:stop], mark) for (start, stop), mark in spans)
    return Written(units, gaps, split, is_list, is_plain_list(normalised, split))


def raw_lines(text: str) -> list[str]:
    """Return the lines of `text` with their ends; they count as the lines of :func:`normalised_text`."""
    lines, start = list[str](), 0
    for match in _LINE_END.finditer(text):
        stop = match.start() if match.group() == "\u2029" else match.end()  # a paragraph separator ends two lines
        lines += [text[start:stop], *([match.group()] if stop < match.end() else [])]
        start = match.end()
    return [*lines, text[start:]]


def without_end(line: str) -> str:
    """Return a raw line without its end."""
    return _LINE_END.sub("", line)


def line_starts(lines: Iterable[str]) -> list[int]:
    """Return the offset at which each raw line begins, and that of the end."""
    return list(accumulate(map(len, lines), initial=0))


def _line_spans(text: str, normalised: str, split: PromptSplit) -> Iterator[tuple[Span, Span | None]]:
    """Yield where each paragraph stands, and where in it its number does."""
    body = text.lstrip(_BYTE_ORDER_MARK)
    lines, first = raw_lines(body), len(text) - len(body)
    starts = line_starts(lines)
    is_paragraphs = split is PromptSplit.PARAGRAPHS
    for item, mark in _items(list(paragraph_lines(normalised) if is_paragraphs else prompt_lines(normalised))):
        touched = [number - 1 for number, _ in item] + ([mark.line - 1] if mark else [])
        begin, end = min(touched), max(touched) + 1
        if is_paragraphs and not mark:
            begin, end = _with_comments(lines, begin, end)
        start, stop = starts[begin], starts[end - 1] + len(without_end(lines[end - 1]))
        place = None
        if mark:
            at = starts[mark.line - 1] - start
            place = (at, at + mark.length)
        yield (first + start, first + stop), place


def _items(paragraphs: list[Lines]) -> Iterator[tuple[Lines, Mark | None]]:
    items = without_numbers(paragraphs)
    marks = list(marks_of(paragraphs)) if items != paragraphs else [None] * len(items)
    return zip(items, marks, strict=True)


def _with_comments(lines: list[str], begin: int, end: int) -> tuple[int, int]:
    """Return the lines of a paragraph with the comments right above and below it."""
    while begin > 0 and not is_break(without_end(lines[begin - 1])):
        begin -= 1
    while end < len(lines) and not is_break(without_end(lines[end])):
        end += 1
    return begin, end


def _bar_spans(text: str, normalised: str) -> Iterator[Span]:
    """Yield where each prompt between bars stands."""
    first = len(text) - len(text.lstrip(_BYTE_ORDER_MARK))
    lines = raw_lines(text[first:])
    starts, begin, end = line_starts(lines), -1, -1
    for number in (number for paragraph in paragraph_lines(normalised) for number, _ in paragraph):
        for offset, character in enumerate(lines[number - 1], start=first + starts[number - 1]):
            if character == "|":
                if begin >= 0:
                    yield begin, end
                begin = -1
            elif not character.isspace():
                begin, end = offset if begin < 0 else begin, offset + 1
    if begin >= 0:
        yield begin, end


def _literal_spans(text: str, normalised: str) -> Iterator[Span]:
    """Yield where each string of a Python list stands."""
    body = text.lstrip(_BYTE_ORDER_MARK)
    start = len(text) - len(body.lstrip())
    body = text[start:]
    ends = [0, *(match.end() for match in _LINE_END_IN_LISTS.finditer(body)), len(body)]

    def offset(line: int, num_bytes: int) -> int:
        rest = body[ends[line - 1] : ends[line]].encode()[:num_bytes]  # columns of Python count bytes of UTF-8
        return start + ends[line - 1] + len(rest.decode())

    for item in python_list_items(normalised):
        assert item.end_lineno is not None and item.end_col_offset is not None
        yield offset(item.lineno, item.col_offset), offset(item.end_lineno, item.end_col_offset)


def blanked(unit: Unit) -> str:
    """Return the text of a unit with spaces in place of its number."""
    if unit.mark is None:
        return unit.text
    start, stop = unit.mark
    return unit.text[:start] + " " * (stop - start) + unit.text[stop:]


def numbered(unit: Unit, number: int) -> str:
    """Return the text of a unit with `number` in place of the number in its mark."""
    if unit.mark is None:
        return unit.text
    start, stop = unit.mark
    digits = re.search(r"\d+", half_width(unit.text[start:stop]))
    assert digits is not None, unit
    return unit.text[: start + digits.start()] + str(number) + unit.text[start + digits.end() :]
