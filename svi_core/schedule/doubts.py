"""What in a text of prompts may have been meant otherwise. It is read as it always was; SVI Plan and the log point to it.

Source: https://github.com/kijai/ComfyUI-WanVideoWrapper, nodes.py (``|`` or ``[1]`` begins another prompt).
"""

import re
from collections.abc import Iterator

from .numbering import is_count, marks_of, without_numbers
from .options import holds_options
from .paragraphs import Lines, half_width, is_empty_options, paragraph_lines, prompt_lines, seen
from .prompt_lists import PromptSplit, is_python_list, normalised_text

_GROUP = re.compile(r"\[([^\[\]]*)\]")
_LINE_SEPARATOR = re.compile(r"(?<=\S)\u2028(?=\S)")
_SENTENCE = re.compile(r".*[.!?。！？][\"'”’)]*")


def doubts(text: str, split: PromptSplit) -> Iterator[str]:
    """Yield what may have been meant otherwise in a text that :func:`parse_schedule` reads, with line and column."""
    written, text = text, normalised_text(text)
    if is_python_list(text):
        return
    if split is PromptSplit.PARAGRAPHS and (match := _LINE_SEPARATOR.search(written)):
        *before, line = normalised_text(written[: match.start()]).split("\n")
        message = "the line separator U+2028 ends a line of the prompt: for the next clip write a blank line."
        yield _doubt(len(before) + 1, len(line), message)
    paragraphs = list(paragraph_lines(text) if split is PromptSplit.PARAGRAPHS else prompt_lines(text))
    lines = [line for paragraph in paragraphs for line in paragraph]
    if split is PromptSplit.PARAGRAPHS:
        yield from _sentences(without_numbers(paragraphs))
    else:
        yield from _options(lines)
    if split is not PromptSplit.BARS:
        yield from _bars(lines)
        yield from _numbers(paragraphs)


def length_doubt(num_clips: int, num_listed: int, decided_by: str = "num_clips is") -> str:
    """Return what to say of a run of `num_clips` whose schedule lists `num_listed` clips; "" if they are as many.

    `decided_by` are the words before the number of clips.
    """
    if num_clips < num_listed:
        return f"the schedule describes {num_listed} clips, but {decided_by} {num_clips}: the rest is not made."
    if num_clips > num_listed:
        rest = f"clips {num_listed + 1} to {num_clips}" if num_clips > num_listed + 1 else f"clip {num_clips}"
        return f"the schedule describes {num_listed} of {num_clips} clips: its last prompt holds for {rest}."
    return ""


def _options(lines: Lines) -> Iterator[str]:
    for number, line in lines:
        for match in _GROUP.finditer(half_width(line)):
            if holds_options(match[1]):
                yield _doubt(
                    number, match.start(), f"{match.group()!r} is part of the prompt: options need split = paragraphs."
                )
                return


def _bars(lines: Lines) -> Iterator[str]:
    for number, line in lines:
        if "|" in line:
            message = "'|' is part of the prompt: to begin a clip at each '|', choose split = bars."
            yield _doubt(number, line.index("|"), message)
            return


def _numbers(paragraphs: list[Lines]) -> Iterator[str]:
    """Yield the beginning of a list that is only a part of the text, or stands on one line."""
    marks = list(marks_of(paragraphs))
    if is_count(marks) and without_numbers(paragraphs) == paragraphs:
        message = "these numbers are part of the prompt: to begin a clip at each, write nothing before number 1."
        yield _doubt(marks[0].line, 0, message)
    for number, line in (line for paragraph in paragraphs for line in paragraph):
        plain = half_width(line)
        start, end = plain.find("[1]"), plain.rfind("[2]")
        if start >= 0 and plain[start + 3 : max(end, 0)].strip():
            message = "'[1]' and '[2]' are part of the prompt: to begin a clip at each, write each on a line of its own."
            yield _doubt(number, start, message)
            return


def _sentences(paragraphs: list[Lines]) -> Iterator[str]:
    """Yield a single paragraph that has a sentence on each line: it may be one prompt per line."""
    if len(paragraphs) != 1 or any(is_empty_options(line) for _, line in paragraphs[0]):
        return
    sentences = [(number, line) for number, line in paragraphs[0] if _SENTENCE.fullmatch(seen(line))]
    if len(sentences) == len(paragraphs[0]) > 1:
        message = f"these {len(sentences)} lines are one prompt: to make a clip of each, choose split = lines."
        yield _doubt(sentences[0][0], 0, message)


def _doubt(line: int, position: int, message: str) -> str:
    return f"schedule, line {line}, column {position + 1}: {message}"
