import random

import pytest

from svi_core.schedule.prompt_lists import PromptSplit
from svi_core.schedule.reroll import with_seed
from svi_core.schedule.text import ScheduleError, parse_schedule

STORY = """# my story

A woman walks through a sunlit kitchen.

[seed 7, cfg 3.5]
She opens the window
# not the door
and looks out.


[cut, anchor garden, lora svi=0.8/1.0]
The garden in the evening.
# the end"""


@pytest.mark.parametrize(
    ("clip", "changed"),
    [
        (0, ("A woman walks", "[seed 99]\nA woman walks")),
        (1, ("[seed 7, cfg 3.5]", "[seed 99, cfg 3.5]")),
        (2, ("lora svi=0.8/1.0]", "lora svi=0.8/1.0, seed 99]")),
    ],
)
def test_only_the_clip_s_options_line_changes(clip, changed):
    assert with_seed(STORY, clip, 99) == STORY.replace(*changed)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("[]", "[seed 5]"),
        ("[ ]", "[seed 5]"),
        ("  [cut , ]  ", "  [cut, seed 5]  "),
        ("[cut,seed   1]", "[cut,seed 5]"),
        ("[ seed 1 ,hold 4]", "[ seed 5 ,hold 4]"),
        ("[anchor seed]", "[anchor seed, seed 5]"),
        ("[lora seed=1]", "[lora seed=1, seed 5]"),
        ("[anchor x2, end seed, x1]", "[anchor x2, end seed, x1, seed 5]"),
    ],
)
def test_an_options_line_keeps_its_other_options_as_they_are_written(options, expected):
    assert with_seed(f"first\n\n{options}\na cat", 1, 5) == f"first\n\n{expected}\na cat"


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (0, "[cut, cfg 2, seed 5]\na cat\n# why\nin the sun\n\n[cfg 2, end b, hold 4, x2]\na cat\nin the sun"),
        (1, "[seed 1, cut, cfg 2]\na cat\n# why\nin the sun\n\n[cfg 2, seed 5]\na cat\nin the sun\n\n"
            "[cfg 2, end b, hold 4]\na cat\nin the sun"),
        (2, "[seed 1, cut, cfg 2, x2]\na cat\n# why\nin the sun\n\n[cfg 2, end b, hold 4, seed 5]\na cat\nin the sun"),
    ],
)  # fmt: skip
def test_a_paragraph_for_several_clips_is_divided(clip, expected):
    text = "first\n\n[seed 1, cut, x3, cfg 2, end b, hold 4]\na cat\n# why\nin the sun\n\nlast"
    if clip == 0:
        expected = expected.replace("[cut, cfg 2, seed 5]", "[seed 5, cut, cfg 2]")
    assert with_seed(text, 1 + clip, 5) == f"first\n\n{expected}\n\nlast"


def test_a_clip_beyond_the_text_gets_a_paragraph_of_its_own():
    text = "a\n\n[cut, cfg 2, hold 4]\nb\n# note\n\n"
    assert with_seed(text, 2, 5) == "a\n\n[cut, cfg 2, hold 4]\nb\n# note\n\n[cfg 2, seed 5]\nb\n"
    assert with_seed("a", 3, 5) == "a\n\n[x2]\na\n\n[seed 5]\na\n"


OPTIONS = "cut|cfg 2.5|seed 3|hold 4|anchor garden|end b|x3|x2|frames 9|lora svi=1/0.5|seam linear".split("|")


@pytest.mark.parametrize("number", range(60))
def test_any_schedule_differs_in_that_seed_only(number):
    """Random schedules, and an independent reading of what each clip is asked for."""
    chance = random.Random(number)
    paragraphs = []
    for index in range(chance.randint(1, 5)):
        options = {option.split()[0].rstrip("23"): option for option in chance.sample(OPTIONS, chance.randint(0, 5))}
        lines = ["# note"] * chance.randint(0, 1)
        lines += [f"[{', '.join(options.values())}]"] if options else []
        lines += [f"prompt {index}", *["# inside", "goes on"][: 2 * chance.randint(0, 1)]]
        paragraphs.append("\n".join(lines))
    text = ("\n" * chance.randint(2, 4)).join(paragraphs) + "\n" * chance.randint(0, 3)
    before = parse_schedule(text)
    clip = chance.randrange(len(before) + 3)
    after = parse_schedule(with_seed(text, clip, 123_456))
    for index in range(len(before) + 6):
        old, new = vars(before.at(index)), vars(after.at(index))
        assert new == (old | {"seed": 123_456} if index == clip else old)
    comments = [line for line in text.split("\n") if line.startswith("#")]
    assert [line for line in with_seed(text, clip, 1).split("\n") if line.startswith("#")] == comments


@pytest.mark.parametrize(
    ("text", "clip", "expected"),
    [
        ("[a red ball] rolls", 0, "[seed 5]\n[a red ball] rolls"),
        ("[x2]\n[a red ball]\nrolls", 0, "[seed 5]\n[a red ball]\nrolls\n\n[]\n[a red ball]\nrolls"),
        ("[x2]\n[a red ball]\nrolls", 1, "[]\n[a red ball]\nrolls\n\n[seed 5]\n[a red ball]\nrolls"),
        ("[seed 1]\n[a red ball]", 1, "[seed 1]\n[a red ball]\n\n[seed 5]\n[a red ball]\n"),
        ("[]\n[seed 7] a cat", 0, "[seed 5]\n[]\n[seed 7] a cat"),
        ("[]\n#1 racing car", 0, "[seed 5]\n[]\n#1 racing car"),
        ("a\n\n# why\n[seed 7, cut] a cat\n\nb", 1, "a\n\n# why\n[seed 5, cut] a cat\n\nb"),
        ("a cat [seed 7]\n\nb", 0, "a cat [seed 5]\n\nb"),
        ("【seed 7】\na cat\n# no\nwalks", 0, "【seed 5】\na cat\n# no\nwalks"),
        ("[Seed 7]\na cat", 0, "[seed 5]\na cat"),
        ("1. a cat\n\n2. a dog", 1, "1. a cat\n\n[seed 5]\n2. a dog"),
        ("1. a cat\n2. a dog", 1, "a cat\n\n[seed 5]\na dog\n"),
        ("1. a cat\n2. [x3] a dog", 2, "a cat\n\na dog\n\n[seed 5]\na dog\n\na dog\n"),
        ("a\u2029b", 1, "a\u2029[seed 5]\nb"),
    ],
)
def test_options_in_other_places_and_prompts_with_brackets_are_kept(text, clip, expected):
    """The right seed, and every other clip as before, whatever form its paragraph has."""
    before, edited = parse_schedule(text), with_seed(text, clip, 5)
    assert edited == expected
    for index in range(6):
        old, new = vars(before.at(index)), vars(parse_schedule(edited).at(index))
        assert new == (old | {"seed": 5} if index == clip else old)


def test_rerolling_again_changes_the_seed_again():
    once = with_seed("[x3]\na", 1, 5)
    assert with_seed(once, 1, 6) == once.replace("seed 5", "seed 6")


@pytest.mark.parametrize(
    ("text", "split"),
    [("a\nb", PromptSplit.LINES), ('prompts = ["a", "b"]', PromptSplit.PARAGRAPHS), ("[\n'a',\n'b']", PromptSplit.PARAGRAPHS)],
)
def test_a_list_of_plain_prompts_is_refused(text, split):
    with pytest.raises(ValueError, match="takes no options"):
        with_seed(text, 0, 5, split)


def test_mistakes_are_named():
    with pytest.raises(ScheduleError, match="line 3, column 2: option 'sed 4' is not known"):
        with_seed("a\n\n[sed 4]\nb", 0, 5)
    with pytest.raises(ValueError, match="seed is '-1'"):
        with_seed("a", 0, -1)
    with pytest.raises(ValueError, match="clip is -1"):
        with_seed("a", -1, 5)
    with pytest.raises(ValueError, match="clip is 10000"):
        with_seed("a", 10_000, 5)
    with pytest.raises(ValueError, match="no prompt"):
        with_seed("# nothing", 0, 5)
