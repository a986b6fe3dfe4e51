"""The prompt stream: one text, one prompt per clip.

Source: SVI_SPEC A1 (prompt files of the released data: ``prompts = [...]`` or one prompt per line, ``#`` comments).
"""

import ast
import re
from enum import StrEnum


class PromptSplit(StrEnum):
    """What separates two prompts of a text."""

    PARAGRAPHS = "paragraphs"
    LINES = "lines"


def parse_prompts(text: str, split: PromptSplit = PromptSplit.PARAGRAPHS) -> tuple[str, ...]:
    """Return the prompts of `text` in order, one per clip.

    A text that assigns a Python list (``prompts = ["...", "..."]``) is read as that list, whatever `split` says; it is
    parsed as a literal and never executed. Otherwise prompts are paragraphs separated by blank lines, or single lines.
    Lines that start with ``#`` are comments.

    Raises:
        ValueError: no prompt, an empty prompt, or a list that is not a plain list of strings (with its line).
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    body = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))
    if re.match(r"\s*(\w+\s*=\s*)?\[\s*(['\"]|\])", body):
        prompts = _parse_python_list(text)
    elif split is PromptSplit.LINES:
        prompts = body.split("\n")
    else:
        prompts = [" ".join(part.split()) for part in re.split(r"\n[ \t]*\n", body)]
    prompts = tuple(prompt.strip() for prompt in prompts if prompt.strip())
    if not prompts:
        raise ValueError("the prompt stream holds no prompt: write one prompt per clip, separated by blank lines.")
    return prompts


def _parse_python_list(text: str) -> list[str]:
    """Return the strings of ``name = [...]`` or ``[...]`` in `text`, without executing anything."""
    try:
        statements = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise ValueError(
            f"the prompt list cannot be read{f' at line {line}' if line else ''} ({getattr(error, 'msg', error)}): "
            "close every quote and bracket, or write one prompt per paragraph."
        ) from error
    lists = [s.value for s in statements if isinstance(s, ast.Assign | ast.Expr) and isinstance(s.value, ast.List)]
    if len(statements) != 1 or len(lists) != 1:
        raise ValueError("the prompt file holds more than one list: keep only `prompts = [...]`, one string per clip.")
    for index, item in enumerate(lists[0].elts, start=1):
        if not (isinstance(item, ast.Constant) and isinstance(item.value, str)):
            raise ValueError(f"item {index} of the prompt list (line {item.lineno}) is not a plain string: quote it.")
        if not item.value.strip():
            raise ValueError(f"item {index} of the prompt list (line {item.lineno}) is empty: write a prompt or remove it.")
    return [item.value for item in lists[0].elts]
