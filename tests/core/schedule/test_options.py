"""Which brackets hold options, and what they say."""

import pytest

from svi_core.schedule.options import OptionGroup, has_numbers, holds_options, option_names, parse_options
from svi_core.schedule.paragraphs import ScheduleError


@pytest.mark.parametrize(
    "content", ["seed 7", "cut", "X2", "anchor garden", "Seam Eased", "softly, cfg 3", "seed -1", "lora a=x", "seed=7"]
)
def test_these_brackets_hold_options(content):
    assert holds_options(content)


@pytest.mark.parametrize(
    "content", ["", "softly", "motion blur", "hold hands", "cut to black", "end of day", "xylophone", "2 cats", "seed"]
)
def test_these_brackets_are_prose(content):
    assert not holds_options(content)


def test_only_some_options_have_numbers():
    assert has_numbers("cut, x2") and not has_numbers("cut, anchor garden")
    assert option_names("CUT, x2 , lora a=1, lora b=2") == {"cut", "x", "lora"}


def test_groups_are_read_together():
    spec = parse_options([OptionGroup(" seed 7,", 1, 2), OptionGroup("Cut, SEAM Linear", 2, 2)]).spec
    assert (spec.seed, spec.cut, spec.seam) == (7, True, "linear")


@pytest.mark.parametrize(
    ("is_certain", "words"),
    [(False, "keep one. If this belongs to the prompt, write .. in the line above it.$"), (True, "keep one.$")],
)
def test_a_mistake_is_named_where_it_stands(is_certain, words):
    groups = [OptionGroup("seed 7", 1, 2), OptionGroup("cfg 2,  seed 8", 3, 5, is_certain)]
    with pytest.raises(ScheduleError, match=words) as error:
        parse_options(groups)
    assert (error.value.line, error.value.column) == (3, 13)
