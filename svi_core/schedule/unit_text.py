"""Edit the text of one paragraph: an option, the prompt, or the part for some of its clips. All else keeps its letters."""

from dataclasses import dataclass, replace

from .options import OptionGroup, option_name, pieces
from .paragraphs import half_width, is_empty_options, is_options_line, paragraph_lines, seen
from .text import options_and_prompt
from .written import Span, Unit, blanked, line_starts, raw_lines, without_end

_ONLY_FIRST = {"seed", "cut", "take"}  # options that hold for the first clip of a paragraph only
_ONLY_LAST = {"end", "hold"}  # and for the last one only
_COMMAS = ",，、 \t\u3000"


@dataclass(frozen=True)
class Parts:
    """What stands where in the text of a unit.

    Attributes:
        lines: its lines, with their ends.
        groups: its options, and where the content of each pair of brackets begins.
        prompt: where each line of its prompt stands, by number of the line from 0.
        comments: its comments, by number of the line.
        begin: where its first line begins that is no comment.
        is_verbatim: ``[]`` says that all below is prompt.
    """

    lines: tuple[str, ...]
    groups: tuple[tuple[int, OptionGroup], ...]
    prompt: dict[int, Span]
    comments: dict[int, str]
    begin: int
    is_verbatim: bool

    def options(self) -> list[tuple[int, str]]:
        """Return each option and where it begins."""
        return [(start + offset, text) for start, group in self.groups for offset, text in pieces(group.content)]


def parts_of(unit: Unit) -> Parts | None:
    """Return what stands where in a unit; None where a number stands apart from its prompt."""
    text = blanked(unit)
    lines = raw_lines(text)
    starts = line_starts(lines)
    paragraphs = list(paragraph_lines("\n".join(map(without_end, lines))))
    if len(paragraphs) != 1:
        return None
    groups, prompt = options_and_prompt(paragraphs[0])
    spans: dict[int, Span] = {}
    for number, line in prompt:
        start = starts[number - 1] + len(line) - len(line.lstrip())
        spans[number - 1] = start, start + len(line.strip())
    numbers = {number - 1 for number, _ in paragraphs[0]}
    comments = {at: without_end(line) for at, line in enumerate(lines) if at not in numbers and seen(line)}
    placed = tuple((starts[group.line - 1] + group.column - 1, group) for group in groups)
    is_verbatim = any(is_empty_options(line) for _, line in paragraphs[0])
    return Parts(tuple(lines), placed, spans, comments, starts[min(numbers)], is_verbatim)


def with_option(unit: Unit, name: str, option: str | None, newline: str, above: bool) -> Unit:
    """Return a unit with `option` in place of its option `name` ("seed", "lora svi"); None removes it.

    Args:
        above: write a line of options above the others, and leave an emptied line ``[]``.
    """
    parts = parts_of(unit)
    if parts is None:
        return unit
    for start, written in parts.options():
        if identity(written) == name:
            if option is not None:
                return _replaced(unit, (start, start + len(written)), option)
            return _without_option(unit, parts, (start, start + len(written)), above)
    if option is None:
        return unit
    if above or not parts.groups:
        return _replaced(unit, (parts.begin, parts.begin), f"[{option}]{newline}")
    start, group = parts.groups[0]
    kept = unit.text[start : start + len(group.content)].rstrip(_COMMAS)
    return _replaced(unit, (start, start + len(group.content)), f"{kept}, {option}" if kept else option)


def with_prompt(unit: Unit, prompt: str, newline: str) -> Unit:
    """Return a unit with another prompt, whose lines are kept; blank ones are left out."""
    parts = parts_of(unit)
    if parts is None:
        return unit
    first, last = min(parts.prompt), max(parts.prompt)
    inside = [line for at, line in parts.comments.items() if first < at < last]
    lines = [*inside, *(line.strip() for line in raw_lines(prompt) if seen(line))]
    return _replaced(unit, (parts.prompt[first][0], parts.prompt[last][1]), newline.join(lines))


def piece(unit: Unit, count: int, *, first: bool, last: bool, comments: bool, newline: str) -> Unit:
    """Return the paragraph for `count` of the clips of a unit, with those options that hold for them.

    Args:
        first: the first clip of the unit is among them.
        last: the last one is.
    """
    parts = parts_of(unit)
    if parts is None:
        return unit
    dropped = {"x", *(() if first else _ONLY_FIRST), *(() if last else _ONLY_LAST)}
    written = [unit.text[start : start + len(text)] for start, text in parts.options()]
    options = [text for text in written if option_name(half_width(text)) not in dropped]
    options += [f"x{count}"] if count > 1 else []
    head = [f"[{', '.join(options)}]"] if options else []
    start = min(parts.prompt)
    text, mark = unit.text, "" if unit.mark is None else unit.text[slice(*unit.mark)]
    above = [line for at, line in parts.comments.items() if comments and at < start]
    body = {at: text[slice(*span)] for at, span in parts.prompt.items()}
    body |= {at: line for at, line in parts.comments.items() if comments and at > start}
    if parts.is_verbatim or (not options and is_options_line(body[start])):
        head.append("[]")
    before = "".join(line + newline for line in (*above, *head))
    place = (len(before), len(before) + len(mark)) if mark else None
    if unit.mark and text[unit.mark[1] : unit.mark[1] + 1] in ("\n", "\r"):
        mark += newline  # a number alone in its line
    return Unit(before + mark + newline.join(body[at] for at in sorted(body)), place)


def comments_of(unit: Unit) -> list[str]:
    """Return the comments in a unit."""
    parts = parts_of(unit)
    return [] if parts is None else list(parts.comments.values())


def identity(option: str) -> str:
    """Return what names an option among others: "seed", or "lora svi" for the LoRA it is about."""
    option = half_width(option)
    name = option_name(option)
    return f"lora {option[len(name) :].partition('=')[0].strip()}" if name == "lora" else name


def _without_option(unit: Unit, parts: Parts, span: Span, keep_brackets: bool) -> Unit:
    start, group = next((start, group) for start, group in parts.groups if start <= span[0] <= start + len(group.content))
    content = unit.text[start : start + len(group.content)]
    before, after = content[: span[0] - start], content[span[1] - start :]
    rest = after.lstrip(_COMMAS)
    if rest:
        return _replaced(unit, (span[0], start + len(content) - len(rest)), "")
    if before.strip(_COMMAS) or keep_brackets:
        return _replaced(unit, (start + len(before.rstrip(_COMMAS)), start + len(content)), "")
    at = group.line - 1
    if is_options_line(half_width(without_end(parts.lines[at]))) and half_width(parts.lines[at]).count("[") == 1:
        begin = line_starts(parts.lines)[at]
        return _replaced(unit, (begin, begin + len(parts.lines[at])), "")
    stop = start + len(content) + 1
    behind = unit.text[stop:]
    return _replaced(unit, (start - 1, stop + len(behind) - len(behind.lstrip(" \t"))), "")


def _replaced(unit: Unit, span: Span, text: str) -> Unit:
    """Return a unit with `text` in place of a span that does not touch the inside of its number."""
    start, stop = span
    moved = unit.mark
    if moved is not None and start <= moved[0]:
        by = len(text) - (stop - start)
        moved = moved[0] + by, moved[1] + by
    return replace(unit, text=unit.text[:start] + text + unit.text[stop:], mark=moved)
