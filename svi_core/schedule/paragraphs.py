"""The paragraphs of a schedule's text: what parts them, and which lines are comments.

Source: https://github.com/deepbeepmeep/Wan2GP/issues/739 (one prompt per line and ``#`` comments in another loop over Wan).
"""

import re
from collections.abc import Iterator

Lines = list[tuple[int, str]]  # (line number from 1, line)
NO_PROMPT = "these options have no prompt: write one below them, without a blank line between."

_UNSEEN = "\u00ad\u180e\u200b\u200c\u200d\u2060\ufeff"
MARGIN = rf"[\s{_UNSEEN}]*"  # what may surround the text of a line, as a regular expression
_WITHOUT_UNSEEN = str.maketrans("", "", _UNSEEN)
_HALF_WIDTH = {0xFEE0 + code: code for code in range(0x21, 0x7F)} | str.maketrans("【】、\u3000", "[], ")
_RULE = re.compile(r"([-=*_~–—―─━═])(\s*\1){2,}")
_OPTIONS_LINE = re.compile(rf"{MARGIN}\[[^\[\]]*\]{MARGIN}")
_EMPTY_OPTIONS = re.compile(rf"{MARGIN}\[[\s,]*\]{MARGIN}")
_NUMBER_SIGN = re.compile(r"#\d.*[^\W\d_]")  # "#1 racing car", but neither "# 1 racing car" nor "#1" alone


class ScheduleError(ValueError):
    """A mistake in a schedule, with line and column."""

    def __init__(self, message: str, line: int, column: int):
        shown = message if len(message) <= 400 else f"{message[:200]}...{message[-200:]}"  # it may quote a value of any length
        super().__init__(f"schedule, line {line}, column {column}: {shown}")
        self.line = line
        self.column = column


def paragraph_lines(text: str) -> Iterator[Lines]:
    """Yield the lines of each paragraph of a normalised text, without comments. Blank lines and rules (``---``) part them.

    Raises:
        ScheduleError: a line such as ``#1 racing car``, which may be a comment or a prompt.
    """
    lines: Lines = []
    is_verbatim = False
    for number, line in enumerate(text.split("\n"), start=1):
        if _is_comment(number, line, is_verbatim):
            continue
        if not is_break(line):
            lines.append((number, line))
            is_verbatim = is_verbatim or is_empty_options(line)
        elif lines:
            yield lines
            lines, is_verbatim = [], False
    if lines:
        yield lines


def prompt_lines(text: str) -> Iterator[Lines]:
    """Yield each line of a normalised text as a paragraph of its own, without comments, blank lines and rules.

    Raises:
        ScheduleError: see :func:`paragraph_lines`.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if not _is_comment(number, line) and not is_break(line):
            yield [(number, line)]


def seen(line: str) -> str:
    """Return what a reader sees of `line`: without characters of no width, and without space at its ends."""
    return line.translate(_WITHOUT_UNSEEN).strip()


def half_width(line: str) -> str:
    """Return `line` with full-width brackets, digits and commas as ASCII, each in its own column."""
    return line.translate(_HALF_WIDTH)


def is_options_line(line: str) -> bool:
    """Whether `line` is nothing but square brackets and what they hold."""
    return _OPTIONS_LINE.fullmatch(line) is not None


def is_empty_options(line: str) -> bool:
    """Whether `line` is ``[]``, below which all is prompt."""
    return _EMPTY_OPTIONS.fullmatch(line) is not None


def is_break(line: str) -> bool:
    """Whether `line` parts paragraphs: blank, or a rule."""
    return not (text := seen(line)) or _RULE.fullmatch(text) is not None


def _is_comment(number: int, line: str, is_verbatim: bool = False) -> bool:
    """Whether a line is a comment; `is_verbatim`: it is below ``[]``."""
    text = seen(line)
    if _NUMBER_SIGN.match(text) is None:
        return text.startswith("#")
    if not is_verbatim:
        raise ScheduleError(
            f"{text[:40]!r} may be a comment, a number or the prompt: write '# {text[1:20]}' for a comment. For a prompt leave "
            "out the '#', or write [] in the line above, and choose split = paragraphs.",
            number,
            line.index("#") + 1,
        )
    return False
