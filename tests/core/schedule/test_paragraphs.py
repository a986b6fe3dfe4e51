"""What parts the clips of a text, and what is a comment."""

import pytest

from svi_core.schedule.paragraphs import ScheduleError
from svi_core.schedule.prompt_lists import PromptSplit
from svi_core.schedule.text import parse_schedule


@pytest.mark.parametrize(
    "between",
    [
        "\n\n", "\r\n\r\n", "\r\r", "\n \t\n", "\u2029", "\u2028\u2028", "\x85\x85", "\n\u2028", "\n\u200b\n", "\n\ufeff\n",
        "\n\u2060 \n", "\n\xa0\n", "\n\u3000\n", "\n---\n", "\n-----\n", "\n- - -\n", "\n***\n", "\n===\n", "\n___\n",
        "\n———\n", "\n\n---\n\n", "\n---\n---\n", "\n# no\n\n", "\n\u200b---\n",
    ],
    ids=repr,
)  # fmt: skip
def test_two_prompts_are_parted(between):
    assert parse_schedule(f"a cat{between}a dog").prompts == ["a cat", "a dog"]
    assert parse_schedule(f"{between}a cat{between}").prompts == ["a cat"]


@pytest.mark.parametrize(
    "between", ["\n", "\u2028", "\x85", "\n# no\n", "\n  # no\n", "\n#1\n", "\n\u200b# no\n", " \v", "\f"], ids=repr
)
def test_one_prompt_is_not(between):
    assert parse_schedule(f"a cat{between}walks").prompts == ["a cat walks"]


def test_lines_are_parted_at_every_kind_of_line_end():
    text = "a\n---\nb\u2028c\u2029d\x85e\r\n\u200b\n# no\nf"
    assert parse_schedule(text, PromptSplit.LINES).prompts == ["a", "b", "c", "d", "e", "f"]


@pytest.mark.parametrize("split", [PromptSplit.PARAGRAPHS, PromptSplit.LINES, PromptSplit.BARS])
def test_a_prompt_that_begins_with_a_number_sign_does_not_vanish(split):
    with pytest.raises(ScheduleError, match="write '# 1 racing car' for a comment") as error:
        parse_schedule("first\n#1 racing car", split)
    assert (error.value.line, error.value.column) == (2, 1)
    assert parse_schedule("#1\nfirst\n#2:\n#2024-11-01\n#a man", split).prompts == ["first"]


def test_a_prompt_that_begins_with_a_number_sign_can_be_written():
    assert parse_schedule("[]\n# no\n#1 racing car\n\nb").prompts == ["#1 racing car", "b"]
