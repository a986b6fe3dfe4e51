"""Storylines: whatever the widgets hold and a language model answers, as many prompts as asked for, or a sentence."""

from hypothesis import strategies as st

from svi_core.schedule.storyline import Storyline, instruction, read_answer, story_text, write_prompts
from svi_core.schedule.storyline_actions import SubjectKind
from svi_core.schedule.text import parse_schedule
from tests.fuzz.campaign import require_sentence
from tests.fuzz.odd_texts import odd_texts

FIELD = odd_texts("a woman", "two dogs", "and ", "in a hat", ".", "[x2]", "#", "\n\n", "1. ", max_size=4)
STORIES = st.fixed_dictionaries(
    {
        "subject": FIELD,
        "kind": st.sampled_from(SubjectKind),
        "num_clips": st.integers(0, 12),
        "seed": st.integers(0, 2**64 - 1),
    },
    optional=dict.fromkeys(("style", "place", "prefix", "suffix"), FIELD),
)
ANSWERS = odd_texts(
    "1. ", "2) ", "\n", "\n\n", "**Clip 3:** ", "<think>", "</think>", "A woman walks. ", "The camera pans.", "- ", "[seed 7]",
    "# ", max_size=25,
)  # fmt: skip


def check(example: tuple[dict, str]) -> str:
    values, answer = example
    try:
        story = Storyline(**values)
        text = story_text(write_prompts(story), "Written by templates")
        assert len(parse_schedule(text)) == story.num_clips
        assert str(story.num_clips) in instruction(story)
    except ValueError as error:
        require_sentence(error)
        return "refused"
    try:
        prompts = read_answer(answer, story)
    except ValueError as error:
        require_sentence(error, "text_model wrote")
        return "written"
    assert len(prompts) == story.num_clips and all(prompts)
    return "answered"


def test_storylines(campaign):
    assert campaign.run("storylines", st.tuples(STORIES, ANSWERS), check, {"written", "refused", "answered"}, limit=10)
