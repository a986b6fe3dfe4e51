"""Prompt texts: read, or refused in a sentence; what is read is written and re-rolled without a loss."""

from dataclasses import replace

from hypothesis import strategies as st

from svi_core.schedule.prompt_lists import PromptSplit
from svi_core.schedule.reroll import with_seed
from svi_core.schedule.text import format_schedule, parse_schedule
from tests.fuzz.campaign import require_sentence
from tests.fuzz.odd_texts import NUMBERS, odd_texts

OPTIONS = st.sampled_from(
    ("seed 7", "frames 81", "motion 5", "cfg 3.5", "anchor garden", "end sea", "lora svi=0.8/1.0", "lora svi=2", "cut",
     "seam linear", "hold 16", "x2", "sede 7", "", "x0", "cut cut", "seed")
)  # fmt: skip
OPTION_LINES = st.lists(
    OPTIONS | st.builds("{} {}".format, st.sampled_from(("seed", "cfg", "x", "hold", "lora a=")), NUMBERS), max_size=4
).map(lambda options: f"[{', '.join(options)}]")
LINES = st.one_of(
    OPTION_LINES,
    odd_texts("[", "]", "(", ")", "#", "---", "|", "1. ", "prompts = ", '"a"', ",", "[seed 7]", max_size=5),
    st.sampled_from(
        ("", "", "# a comment", "#1 racing car", "---", "prompts = [", "]", '"a cat",', '"""', "a | b", "1. a", "\ufeff")
    ),
)
TEXTS = st.lists(LINES, max_size=10).map("\n".join)
PLAIN = st.lists(st.from_regex(r"[A-Za-z][a-z]{0,8}( [a-z]{1,8}){0,5}[.!?]?", fullmatch=True), min_size=1, max_size=6)


def check(example: tuple[str, PromptSplit, int]) -> str:
    text, split, index = example
    try:
        schedule = parse_schedule(text, split)
    except ValueError as error:
        require_sentence(error)
        return "refused"
    for prompt in schedule.prompts:
        assert prompt == prompt.strip() and prompt
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "read"  # the nodes refuse it first
    try:
        assert parse_schedule(format_schedule(schedule)) == schedule
    except ValueError as error:
        assert "reword" in str(error)
    try:
        edited = parse_schedule(with_seed(text, index, 12345, split), split)
    except ValueError as error:
        require_sentence(error)
        return "read"
    for clip in range(max(len(schedule), index + 1)):
        expected = schedule.at(clip)
        assert edited.at(clip) == (replace(expected, seed=12345) if clip == index else expected)
    return "re-rolled"


def test_prompt_texts(campaign):
    examples = st.tuples(TEXTS, st.sampled_from(PromptSplit), st.integers(0, 12))
    assert campaign.run("prompts", examples, check, {"read", "refused", "re-rolled"}, limit=10)


def check_plain(paragraphs: list[str]) -> str:
    assert parse_schedule("\n\n".join(paragraphs)).prompts == list(dict.fromkeys(paragraphs))
    assert parse_schedule("\n".join(paragraphs), PromptSplit.LINES).prompts == list(dict.fromkeys(paragraphs))
    return "as it was"


def test_plain_paragraphs_come_back_as_they_are(campaign):
    assert campaign.run("prompts", PLAIN, check_plain, {"as it was"})
