"""Plain lists of prompts: a Python list, as the released data has them, one prompt per line, or prompts between bars.

Source: docs/METHOD.md, 4.7 (prompt files of the released data: ``prompts = [...]`` or one prompt per line, ``#`` comments);
https://github.com/kijai/ComfyUI-WanVideoWrapper, nodes.py (its text encoder takes the prompts between ``|``).
"""

import ast
import re
from enum import StrEnum

from ..files.text_file import require_unicode
from .numbering import without_numbers
from .paragraphs import paragraph_lines, prompt_lines

_LIST = re.compile(
    r'''
    \s* (?: \#.*\n \s* )*                       # comments
    (?: (?s: """.*?""" | \'{3}.*?\'{3} ) \s* (?: \#.*\n \s* )* )?  # the file's docstring
    (?: \w+ \s* (?: :[^=\n]* )? = \s* [\[(]      # prompts = [, prompts: list[str] = [, prompts = (
      | (?P<bare> \[ ) )                         # or a bare list
    \s* (?: \#.*\n \s* )*                       # comments behind the bracket
    (?: [rRuUfFbB]{0,2} ['"] | (?(bare) \] \s* \Z | [\])] ) )  # its first string, or its end; a bare [] has nothing below
    ''',
    re.VERBOSE,
)
_BREAKS = str.maketrans({"\v": "\n", "\f": "\n", "\x85": "\n", "\u2028": "\n", "\u2029": "\n\n"})


class PromptSplit(StrEnum):
    """What separates the prompts of a text."""

    PARAGRAPHS = "paragraphs"
    LINES = "lines"
    BARS = "bars"


def normalised_text(text: str) -> str:
    """Return `text` without a byte order mark and with its lines ended by newlines, two at a paragraph separator.

    The strings of a ``prompts = [...]`` file keep what they hold.
    """
    text = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return text if is_python_list(text) else text.translate(_BREAKS)


def is_python_list(text: str) -> bool:
    """Whether a normalised text is a ``prompts = [...]`` file."""
    return _LIST.match(text) is not None


def is_plain_list(text: str, split: PromptSplit) -> bool:
    """Whether a normalised text is a list of plain prompts: split by lines or bars, or a ``prompts = [...]`` file."""
    return split is not PromptSplit.PARAGRAPHS or is_python_list(text)


def parse_prompts(text: str, split: PromptSplit) -> tuple[str, ...]:
    """Return the prompts of a normalised plain list in order, one per clip; lines that start with ``#`` are comments.

    A Python list (``prompts = ["...", "..."]``) is parsed as a literal and never executed.

    Raises:
        ScheduleError: a line that may be a comment or a prompt, or a numbered list whose clips are not clear.
        ValueError: an empty prompt, or a list that is not a plain list of strings (with its line).
    """
    if is_python_list(text):
        prompts = [str(item.value) for item in python_list_items(text)]
    elif split is PromptSplit.BARS:
        lines = [line for paragraph in paragraph_lines(text) for _, line in paragraph]
        prompts = [" ".join(part.split()) for part in "\n".join(lines).split("|")]
    else:
        prompts = [" ".join(line.strip() for _, line in item) for item in without_numbers(prompt_lines(text))]
    return tuple(prompt.strip() for prompt in prompts if prompt.strip())


def python_list_items(text: str) -> list[ast.Constant]:
    """Return the strings of ``name = [...]`` or ``[...]`` with their places in ``text.strip()``.

    Raises:
        ValueError: see :func:`parse_prompts`.
    """
    require_unicode(text, "the prompt list")
    try:
        statements = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise ValueError(
            f"the prompt list cannot be read{f' at line {line}' if line else ''} ({getattr(error, 'msg', error)}): "
            "close every quote and bracket, or write one prompt per paragraph."
        ) from error
    if len(statements) > 1 and isinstance(statements[0], ast.Expr) and isinstance(statements[0].value, ast.Constant):
        del statements[0]  # the file's docstring
    values = [s.value for s in statements if isinstance(s, ast.Assign | ast.AnnAssign | ast.Expr)]
    if len(statements) != 1 or len(values) != 1 or not isinstance(values[0], ast.List | ast.Tuple):
        raise ValueError("the prompt file holds more than one list: keep only `prompts = [...]`, one string per clip.")
    items: list[ast.Constant] = []
    for index, item in enumerate(values[0].elts, start=1):
        if not (isinstance(item, ast.Constant) and isinstance(item.value, str)):
            raise ValueError(f"item {index} of the prompt list (line {item.lineno}) is not a plain string: quote it.")
        if not item.value.strip():
            raise ValueError(f"item {index} of the prompt list (line {item.lineno}) is empty: write a prompt or remove it.")
        require_unicode(item.value, f"item {index} of the prompt list")
        items.append(item)
    return items
