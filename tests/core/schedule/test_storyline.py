"""The storyline engine: templates that make sense for any subject, and strict reading of a language model's answer."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svi_core.schedule.storyline import Storyline, instruction, read_answer, story_text, write_prompts
from svi_core.schedule.storyline_actions import ACTIONS, CAMERA_AT_REST, CAMERA_FOLLOWING, Role, SubjectKind
from svi_core.schedule.text import parse_schedule

CAMERAS = {*CAMERA_AT_REST, *CAMERA_FOLLOWING}
WOMAN = "a young woman in a pink dress"
ANSWER = """Here is your story:

1. **A young woman in a pink dress** stands on a hill. The camera stays still.
2) She walks down the hill
   through the grass. The camera follows.
Clip 3: "The young woman in the pink dress sits down. The camera moves closer."
"""


def action_of(prompt, kind):
    """Return the one action of `kind` that a prompt about a single subject shows."""
    found = [action for action in ACTIONS[kind] if re.search(pattern_of(action), prompt, re.IGNORECASE)]
    assert len(found) == 1, (prompt, found)
    return found[0]


def pattern_of(action):
    text = re.sub(r"(\w+)/\w+", r"\1", action.text)
    return r"(^|, )" + ".+".join(re.escape(part) for part in text.split("{subject}")) + r"\. The camera"


@given(st.sampled_from(SubjectKind), st.integers(1, 40), st.integers(0, 10_000), st.sampled_from(["", "in a wide valley"]))
def test_a_story_names_its_subject_in_every_clip_and_goes_on_where_it_was(kind, num_clips, seed, place):
    prompts = write_prompts(Storyline(subject="a red fox", kind=kind, num_clips=num_clips, seed=seed, place=place))
    assert len(prompts) == num_clips
    actions = [action_of(prompt, kind) for prompt in prompts]
    for prompt in prompts:
        assert "red fox" in prompt and place in prompt.lower() and prompt[0].isupper()
        assert sum(prompt.endswith(camera) for camera in CAMERAS) == 1
        assert "/" not in prompt and "{" not in prompt and "  " not in prompt and ".." not in prompt
    assert actions[0].role is Role.OPENING and all(action.role is Role.MIDDLE for action in actions[1:-1])
    assert num_clips == 1 or actions[-1].role is Role.ENDING
    assert all(before.after == after.before for before, after in itertools.pairwise(actions))


@pytest.mark.parametrize("kind", SubjectKind)
def test_from_every_pose_a_story_can_go_on_and_end(kind):
    actions = ACTIONS[kind]
    poses = {action.after for action in actions}
    for role in (Role.MIDDLE, Role.ENDING):
        assert {action.before for action in actions if action.role is role} >= poses
    assert len({action.text for action in actions}) == len(actions)


@pytest.mark.parametrize("kind", SubjectKind)
def test_an_action_is_a_sentence_about_the_subject_without_pronouns(kind):
    for action in ACTIONS[kind]:
        assert action.text.count("{subject}") == 1 and not action.text.endswith(".")
        assert not re.search(r"\b(he|she|it|its|his|her|they|their|him|them)\b", action.text), action.text


def test_the_same_seed_gives_the_same_story_and_another_another():
    stories = [write_prompts(Storyline(subject=WOMAN, num_clips=8, seed=seed)) for seed in (1, 1, 2)]
    assert stories[0] == stories[1] != stories[2]


def test_actions_are_not_repeated_while_others_are_left():
    prompts = write_prompts(Storyline(subject=WOMAN, num_clips=10, seed=3))
    assert len(set(prompts)) == 10


def test_a_prompt_reads_as_a_person_would_write_it():
    story = Storyline(
        subject=" a young woman in a pink dress. ", place="on a green hill", style="watercolour, soft light", num_clips=2
    )
    first, second = write_prompts(story)
    assert first.startswith("On a green hill, a young woman in a pink dress stands still")
    assert second.startswith("On a green hill, the young woman in a pink dress ")
    assert first.endswith(". Watercolour, soft light.")
    bare = write_prompts(Storyline(subject="Anna", num_clips=2))
    assert all(prompt.startswith("Anna ") for prompt in bare)


@pytest.mark.parametrize(
    "subject", ["two children", "3 dogs with collars", "Tom and Jerry", "a boy and a dog", "several boats"]
)
def test_several_subjects_take_the_plural(subject):
    (prompt,) = write_prompts(Storyline(subject=subject, num_clips=1))
    assert " stand still" in prompt and "stands" not in prompt


@pytest.mark.parametrize(
    "subject", ["a black and white cat", "a woman with black and white hair", "the man from Bonnie and Clyde", "1 dog"]
)
def test_a_single_subject_with_an_and_in_it_stays_single(subject):
    (prompt,) = write_prompts(Storyline(subject=subject, num_clips=1))
    assert " stands still" in prompt


def test_prefix_and_suffix_go_round_every_prompt_as_they_are():
    prompts = write_prompts(Storyline(subject="Anna", num_clips=3, prefix="Style: anime", suffix="8k!"))
    assert all(prompt.startswith("Style: anime. Anna ") and prompt.endswith(" 8k!") for prompt in prompts)


def test_the_text_is_a_schedule_that_says_where_it_comes_from():
    prompts = write_prompts(Storyline(subject=WOMAN, num_clips=4))
    text = story_text(prompts, "From templates")
    assert text.startswith("# From templates. One paragraph is one clip")
    assert tuple(paragraph.spec.prompt for paragraph in parse_schedule(text).paragraphs) == prompts


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"subject": " "}, "subject is empty"),
        ({"subject": " ., "}, "subject is empty"),
        ({"place": "a\ud800"}, "place, line 1, column 2"),
        ({"num_clips": 0}, "1 to 200"),
        ({"num_clips": 201}, "1 to 200"),
    ],
)
def test_what_cannot_be_told_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        write_prompts(Storyline(**{"subject": "a cat", **values}))


def test_the_instruction_holds_everything_that_was_asked():
    story = Storyline(subject=WOMAN, num_clips=7, style="noir", place="in a bar")
    text = instruction(story)
    assert all(part in text for part in ("7 clips", "from 1 to 7", f"Subject: {WOMAN}", "Place: in a bar", "Style: noir"))
    assert "picture" not in text
    with pytest.raises(ValueError, match="subject is empty"):
        instruction(Storyline(subject=""))
    assert "main subject of the picture" in instruction(Storyline(subject=""), sees_image=True)


def test_an_answer_is_read_whatever_its_dress():
    prompts = read_answer(ANSWER, Storyline(subject=WOMAN, num_clips=3, suffix="Film grain"))
    assert prompts == (
        "A young woman in a pink dress stands on a hill. The camera stays still. Film grain.",
        "A young woman in a pink dress. She walks down the hill through the grass. The camera follows. Film grain.",
        "The young woman in the pink dress sits down. The camera moves closer. Film grain.",
    )


@pytest.mark.parametrize(
    "answer",
    [
        "<think>1. no\n2. no\n3. no</think>\n1. One cat.\n2. Two cat.\n3. Three cat.",
        "One cat.\n\nTwo cat.\n\nThree cat.\n\nA fourth cat.",
    ],
)
def test_thoughts_and_surplus_are_left_out(answer):
    assert read_answer(answer, Storyline(subject="a cat", num_clips=3)) == ("One cat.", "Two cat.", "Three cat.")


@pytest.mark.parametrize("answer", ["", "1. Only one cat.", "<think>1. a\n2. b\n3. c", "I cannot help with that."])
def test_too_short_an_answer_is_refused_and_shown(answer):
    with pytest.raises(ValueError, match=r"wrote [01] of 3 prompts"):
        read_answer(answer, Storyline(subject="a cat", num_clips=3))
