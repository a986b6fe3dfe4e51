"""Numbered prompts are read without their numbers; a prompt that begins with a digit stays as it is."""

import pytest

from svi_core.schedule.paragraphs import ScheduleError
from svi_core.schedule.prompt_lists import PromptSplit
from svi_core.schedule.text import parse_schedule


@pytest.mark.parametrize(
    "text",
    [
        "1. a cat\n2. a dog\n3. an owl",
        "1. a cat\n\n2. a dog\n\n3. an owl",
        "# story\n1) a cat\n2) a dog\n\n3) an owl\n",
        "(1) a cat\n(2) a dog\n(3) an owl",
        "[1] a cat\n[2] a dog\n[3] an owl",
        "1: a cat\n2: a dog\n3: an owl",
        "1 - a cat\n2 - a dog\n3 - an owl",
        "1、a cat\n2、a dog\n3、an owl",
        "  1.  a\ncat\n  2.  a dog\n  3.  an\nowl",
        "**1.** a cat\n**2.** a dog\n**3.** an owl",
        "Clip 1: a cat\nClip 2: a dog\nClip 3: an owl",
        "**Clip 1:** a cat\n\n**Clip 2:** a dog\n\n**Clip 3:** an owl",
        "scene 1 - a cat\nscene 2 - a dog\nscene 3 - an owl",
        "Shot #1: a cat\nShot #2: a dog\nShot #3: an owl",
        "Clip 1\na cat\n\nClip 2\na dog\n\nClip 3\nan owl",
        "Clip 1\n\na cat\n\nClip 2\n\na dog\n\nClip 3\n\nan owl",
        "=== Clip 1 ===\na cat\n--- Clip 2 ---\na dog\n*** Clip 3 ***\nan owl",
        "1.\na cat\n\n2.\na dog\n\n3.\nan owl",
        "\ufeff1. a cat\r\n2. a dog\r\n---\r\n3. an owl",
    ],
    ids=repr,
)
def test_the_number_is_not_part_of_the_prompt(text):
    assert parse_schedule(text).prompts == ["a cat", "a dog", "an owl"]


def test_lines_may_be_numbered_too():
    assert parse_schedule("1. a cat\n2. a dog", PromptSplit.LINES).prompts == ["a cat", "a dog"]
    assert parse_schedule("Clip 1\na cat\nClip 2\na dog", PromptSplit.LINES).prompts == ["a cat", "a dog"]


def test_numbered_prompts_may_have_options():
    schedule = parse_schedule("1. [seed 7] a cat\n\n[cut]\n2. a dog [hold 3]\n3. an owl")
    specs = [schedule.at(index) for index in range(3)]
    assert [(spec.prompt, spec.seed, spec.cut, spec.hold) for spec in specs] == [
        ("a cat", 7, False, 0),
        ("a dog", None, True, 3),
        ("an owl", None, False, 0),
    ]


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("1. a cat", ["1. a cat"]),
        ("2. a cat\n\n3. a dog", ["2. a cat", "3. a dog"]),
        ("1. a cat\n\n3. a dog", ["1. a cat", "3. a dog"]),
        ("1. a cat\n\n2) a dog", ["1. a cat", "2) a dog"]),
        ("1 cat\n\n2 dogs", ["1 cat", "2 dogs"]),
        ("1.5 metres\n\n2.5 metres", ["1.5 metres", "2.5 metres"]),
        ("She cooks:\n1. she cuts\n2. she fries", ["She cooks: 1. she cuts 2. she fries"]),
        ("1. she cuts\n2. she fries\n\n1. he eats\n2. he sleeps", ["1. she cuts 2. she fries", "1. he eats 2. he sleeps"]),
        ("[]\n1. a cat\n\n[]\n2. a dog", ["1. a cat", "2. a dog"]),
        ("Part 1 of 2\n\nanother", ["Part 1 of 2", "another"]),
    ],
)
def test_a_prompt_may_begin_with_a_digit(text, prompts):
    assert parse_schedule(text).prompts == prompts


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("1. a cat\n\nit rains\n\n2. a dog", 3, "this paragraph has no number"),
        ("Clip 1\n\na cat\n\nit rains\n\nClip 2\n\na dog", 5, "this paragraph has no number"),
        ("1. a cat\n[seed 7]\n2. a dog", 2, "stand between two numbered prompts"),
        ("1. a cat\n2.\n3. an owl", 2, "number 2 has no prompt"),
        ("1. a cat\n\n[seed 3]\n\n2. a dog", 3, "have no prompt"),
    ],
)
def test_a_list_that_is_not_clear_is_named_by_line(text, line, words):
    with pytest.raises(ScheduleError, match=words) as error:
        parse_schedule(text)
    assert error.value.line == line
