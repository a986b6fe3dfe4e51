"""A text that may have been meant otherwise is pointed to by line and column; it is read as it always was."""

import pytest

from svi_core.schedule.doubts import doubts
from svi_core.schedule.prompt_lists import PromptSplit
from svi_core.schedule.text import parse_schedule
from tests.work import grows_in_proportion


@pytest.mark.parametrize(
    ("text", "split", "prompts", "words"),
    [
        (
            "a cat | a dog",
            "paragraphs",
            ["a cat | a dog"],
            "line 1, column 7: '|' is part of the prompt: to begin a clip at each",
        ),
        ("a\n\nOPEN | 24h", "lines", ["a", "OPEN | 24h"], "line 3, column 6: '|' is part of the prompt"),
        ("[x2]\na cat", "lines", ["[x2]", "a cat"], "line 1, column 1: '[x2]' is part of the prompt: options need split ="),
        ("a | [seed 7] b", "bars", ["a", "[seed 7] b"], "line 1, column 5: '[seed 7]' is part of the prompt"),
        ("Your prompts:\n1. a\n2. b", "paragraphs", ["Your prompts: 1. a 2. b"], "line 2, column 1: these numbers are part"),
        (
            "[1] a cat [2] a dog",
            "paragraphs",
            ["[1] a cat [2] a dog"],
            "line 1, column 1: '[1]' and '[2]' are part of the prompt",
        ),
        (
            "x\r\n\r\na cat\u2028a dog",
            "paragraphs",
            ["x", "a cat a dog"],
            "line 3, column 6: the line separator U+2028 ends a line",
        ),
        (
            "A cat walks.\nA dog runs!",
            "paragraphs",
            ["A cat walks. A dog runs!"],
            "line 1, column 1: these 2 lines are one prompt",
        ),
    ],
)
def test_what_may_have_been_meant_otherwise_is_pointed_to(text, split, prompts, words):
    assert parse_schedule(text, PromptSplit(split)).prompts == prompts
    (doubt,) = doubts(text, PromptSplit(split))
    assert words in doubt


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("A cat walks\nthrough the sun.\n\nA dog.", "paragraphs"),
        ("A cat walks.\n\nA dog runs.", "paragraphs"),
        ("1. A cat walks.\n2. A dog runs.", "paragraphs"),
        ("[seed 7] a cat [softly]", "paragraphs"),
        ("[a cat]\n[a dog]", "lines"),
        ("a | b", "bars"),
        ("prompts = ['a | [seed 7] b']", "paragraphs"),
        ("[]\nA cat walks.\nA dog runs.", "paragraphs"),
    ],
)
def test_a_text_that_is_clear_is_not(text, split):
    assert list(doubts(text, PromptSplit(split))) == []


def test_many_brackets_are_read_once():
    """`[1] ` 1000 times took 15 s, in which the server answered nobody: of these it would never come back."""
    assert list(doubts("[1] " * 20_000 + "end", PromptSplit.PARAGRAPHS)) == []
    assert grows_in_proportion(lambda text: list(doubts(text, PromptSplit.PARAGRAPHS)), lambda n: "[1] " * n + "end")
