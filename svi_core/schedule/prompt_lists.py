"""Plain lists of prompts: a Python list, as the released data has them, or one prompt per line.

Source: docs/METHOD.md, 4.7 (prompt files of the released data: ``prompts = [...]`` or one prompt per line, ``#`` comments).
"""

import ast
import re
from enum import StrEnum

from ..files.text_file import require_unicode

_LIST = re.compile(
    r'''
    \s* (?: \#.*\n \s* )*                       # comments
    (?: (?s: """.*?""" | \'{3}.*?\'{3} ) \s* (?: \#.*\n \s* )* )?  # the file's docstring
    (?: \w+ \s* (?: :[^=\n]* )? = \s* [\[(]      # prompts = [, prompts: list[str] = [, prompts = (
      | \[ )                                     # or a bare list
    \s* (?: \#.*\n \s* )*                       # comments behind the bracket
    (?: [rRuUfFbB]{0,2} ['"] | [\])] )                  # its first string, or its end
    ''',
    re.VERBOSE,
)


class PromptSplit(StrEnum):
    """What separates the prompts of a text."""

    PARAGRAPHS = "paragraphs"
    LINES = "lines"


def normalised_text(text: str) -> str:
    """Return `text` without a byte order mark and with its lines ended by newlines."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def is_plain_list(text: str, split: PromptSplit) -> bool:
    """Whether a normalised text is a list of plain prompts: split by lines, or a ``prompts = [...]`` file."""
    return split is PromptSplit.LINES or _LIST.match(text) is not None


def parse_prompts(text: str) -> tuple[str, ...]:
    """Return the prompts of a plain list in order, one per clip.

    A Python list (``prompts = ["...", "..."]``) is parsed as a literal and never executed. Otherwise each line is a prompt, and
    lines that start with ``#`` are comments.

    Raises:
        ValueError: no prompt, an empty prompt, or a list that is not a plain list of strings (with its line).
    """
    text = normalised_text(text)
    if _LIST.match(text):
        prompts = _parse_python_list(text)
    else:
        prompts = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    prompts = tuple(prompt.strip() for prompt in prompts if prompt.strip())
    if not prompts:
        raise ValueError("the prompt stream holds no prompt: write one prompt per clip, separated by blank lines.")
    return prompts


def _parse_python_list(text: str) -> list[str]:
    """Return the strings of ``name = [...]`` or ``[...]``."""
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
    prompts: list[str] = []
    for index, item in enumerate(values[0].elts, start=1):
        if not (isinstance(item, ast.Constant) and isinstance(item.value, str)):
            raise ValueError(f"item {index} of the prompt list (line {item.lineno}) is not a plain string: quote it.")
        if not item.value.strip():
            raise ValueError(f"item {index} of the prompt list (line {item.lineno}) is empty: write a prompt or remove it.")
        require_unicode(item.value, f"item {index} of the prompt list")
        prompts.append(item.value)
    return prompts
