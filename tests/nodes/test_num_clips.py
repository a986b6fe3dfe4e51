"""The number of clips of a run, and what is said of it."""

import sys
from types import SimpleNamespace

import pytest

from svi_core.schedule.text import parse_schedule


@pytest.fixture
def told(pack, monkeypatch):
    """A function that returns the number of clips, and what log and page were told."""
    module = sys.modules[f"{pack.__name__}.nodes.num_clips"]

    def tell(num_clips, control=(), until_stopped=False):
        said = []
        monkeypatch.setattr(module, "warn", lambda node, text: said.append(("warn", text)))
        monkeypatch.setattr(module, "inform", lambda node, text: said.append(("info", text)))
        prompts = SimpleNamespace(schedule=parse_schedule("one\n\n[x2]\ntwo"), until_stopped=until_stopped)
        return module.tell_num_clips(num_clips, prompts, control), said

    return tell


@pytest.mark.parametrize("num_clips", [0, 3])
def test_as_many_as_the_prompts_need_no_word(told, num_clips):
    assert told(num_clips) == (3, [])


def test_a_prompt_that_is_not_made_is_a_warning(told):
    text = "the schedule describes 3 clips, but num_clips is 2: the rest is not made."
    assert told(2) == (2, [("warn", text)])


@pytest.mark.parametrize(("num_clips", "which"), [(4, "clip 4"), (9, "clips 4 to 9")])
def test_a_prompt_that_holds_on_is_said(told, num_clips, which):
    text = f"the schedule describes 3 of {num_clips} clips: its last prompt holds for {which}."
    assert told(num_clips) == (num_clips, [("info", text)])


def test_a_sound_whose_length_is_not_asked_for_is_a_warning(told):
    number, ((kind, text),) = told(0, control=("sound",))
    assert (number, kind) == (3, "warn") and text.startswith("num_clips is 0, so the prompts set the number of clips, not")
    assert told(3, control=("sound",)) == (3, [])


def test_until_stopped_has_no_number(told):
    assert told(0, until_stopped=True) == (10_000, [])
