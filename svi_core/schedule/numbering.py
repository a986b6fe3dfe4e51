"""Numbered prompts: ``1. A cat``, ``2. A dog``, or ``Clip 1:``, ``Clip 2:``. A number begins a clip; it is not in its prompt.

Only a text that is one list as a whole, counted from 1 without a gap, is read so: a prompt may begin with a digit.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .paragraphs import MARGIN, NO_PROMPT, Lines, ScheduleError, half_width, is_empty_options, is_options_line, seen

_WORD = r"(?P<word>clip|scene|shot|segment|part|prompt)\s*\#?(?P<counted>\d{1,5})"
_MARK = re.compile(
    rf"""
    {MARGIN} [*_]{{0,3}}                                           # Markdown's bold
    (?: {_WORD} [*_]{{0,3}} \s* (?P<after>[.:)\-–—：])
      | (?P<open>[(\[]?) (?P<number>\d{{1,5}}) (?: \s* (?P<close>[.:)\]\-–—]) | (?P<wide>[、．：]) ) )
    [*_]{{0,3}} (?: \s+ | $ | (?<=[、．：]) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_HEADING = re.compile(_WORD, re.IGNORECASE)


@dataclass(frozen=True)
class Mark:
    """The number before a prompt.

    Attributes:
        line: its line, from 1.
        number: its value.
        style: how it is written, without the value.
        length: characters of the line that belong to it.
    """

    line: int
    number: int
    style: tuple[str, ...]
    length: int


def without_numbers(paragraphs: Iterable[Lines]) -> list[Lines]:
    """Return one paragraph per number, without the numbers, if the whole text is a numbered list; else `paragraphs`.

    Raises:
        ScheduleError: a numbered list whose clips are not clear.
    """
    paragraphs = list(paragraphs)
    marks = {mark.line: mark for mark in marks_of(paragraphs)}
    if not is_count(marks.values()) or not _begins_with(paragraphs[0], marks):
        return paragraphs
    items: list[Lines] = []
    for lines in paragraphs:
        _add_paragraph(items, lines, marks)
    for item, line in zip(items, marks, strict=True):
        if not any(seen(text) and not is_options_line(half_width(text)) for _, text in item):
            raise ScheduleError(f"number {marks[line].number} has no prompt: write one behind it, or remove it.", line, 1)
    return items


def marks_of(paragraphs: Iterable[Lines]) -> Iterator[Mark]:
    """Yield the numbers at the beginnings of lines, except below ``[]``."""
    for lines in paragraphs:
        for number, line in lines:
            if is_empty_options(line):
                break
            if mark := _mark(number, line):
                yield mark


def is_count(marks: Iterable[Mark]) -> bool:
    """Whether `marks` count from 1 to 2 or more, written alike."""
    marks = list(marks)
    counts = [mark.number for mark in marks] == list(range(1, len(marks) + 1))
    return counts and len(marks) > 1 and len({mark.style for mark in marks}) == 1


def _mark(number: int, line: str) -> Mark | None:
    if match := _HEADING.fullmatch(seen(line).strip("-=*_~–—<> ")):
        return Mark(number, int(match["counted"]), (match["word"].lower(),), len(line))
    match = _MARK.match(line)
    if match is None:
        return None
    if match["word"]:
        return Mark(number, int(match["counted"]), (match["word"].lower(), match["after"]), match.end())
    return Mark(number, int(match["number"]), (match["open"], match["close"] or match["wide"]), match.end())


def _begins_with(lines: Lines, marks: dict[int, Mark]) -> bool:
    """Whether the first line of a paragraph that holds no options is numbered."""
    first = next((number for number, line in lines if number in marks or not is_options_line(half_width(line))), None)
    return first in marks


def _add_paragraph(items: list[Lines], lines: Lines, marks: dict[int, Mark]) -> None:
    """Add the numbered prompts of one paragraph to `items`; a number alone takes the paragraph that follows."""
    begun = False
    options: Lines = []  # above a number
    for number, line in lines:
        mark = marks.get(number)
        if mark is not None:
            if begun and items[-1] and is_options_line(half_width(items[-1][-1][1])) and len(items[-1]) > 1:
                raise _unclear_options(*items[-1][-1])
            rest = " " * mark.length + line[mark.length :]
            items.append([*options, *([(number, rest)] if seen(rest) else [])])
            begun, options = True, []
        elif begun:
            items[-1].append((number, line))
        elif is_options_line(half_width(line)):
            options.append((number, line))
        elif items and not items[-1]:
            items[-1] += [*options, (number, line)]
            begun, options = True, []
        else:
            raise ScheduleError(
                "this paragraph has no number, but the text is a numbered list: join it to the prompt before, or number all "
                "prompts or none.",
                number,
                1,
            )
    if options:
        raise ScheduleError(NO_PROMPT, options[0][0], 1)


def _unclear_options(number: int, line: str) -> ScheduleError:
    return ScheduleError(
        "these options stand between two numbered prompts: write a blank line above them if they belong to the prompt below, "
        "or put them above the one before.",
        number,
        line.index(seen(line)[0]) + 1,
    )
