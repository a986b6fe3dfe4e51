import pytest
from hypothesis import given
from hypothesis import strategies as st

from svi_core.schedule.prompt_lists import PromptSplit, is_plain_list, parse_prompts
from svi_core.schedule.text import parse_schedule


def prompts_of(text, split=PromptSplit.PARAGRAPHS):
    """What a prompt stream makes of `text`."""
    return tuple(paragraph.spec.prompt for paragraph in parse_schedule(text, split).paragraphs)


def test_one_prompt_per_line():
    text = "a\n\n# no\n b \n"
    assert parse_prompts(text, PromptSplit.LINES) == ("a", "b") == prompts_of(text, PromptSplit.LINES)


@pytest.mark.parametrize(
    "head",
    [
        "prompts = ",
        "",
        "# from SVI\nprompts=",
        "\ufeffprompts = ",
        "positive_prompts = ",
        "prompts: list[str] = ",
        '"""Two prompts.\n\nFor a test."""\n\nprompts = ',
    ],
)
@pytest.mark.parametrize("split", PromptSplit)
def test_the_files_of_svis_data_are_read_as_they_are(head, split):
    for begin, end in (("[", "]"), ("[  # a story", "]"), ("[\n # a\n # story", "]")):
        text = head + begin + "\n    'A cat, walking.',\n    # skipped\n    r\"It's raining [hard].\",\n" + end + "\n"
        assert prompts_of(text, split) == ("A cat, walking.", "It's raining [hard].")
    assert prompts_of("prompts = (u'a', 'b')", split) == prompts_of("[r'a', 'b']", split) == ("a", "b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no prompt"),
        (" \n\n# only a comment\n", "no prompt"),
        ("prompts = []", "no prompt"),
        ("prompts = ['a', ", "cannot be read at line"),
        ("prompts = ['a', '']", "item 2 .* is empty"),
        ("prompts = ['a', 3]", r"item 2 of the prompt list \(line 1\) is not a plain string"),
        ("prompts = [f'{1}']", "item 1 .* is not a plain string"),
        ("prompts = ['a',\n __import__('os').system('true')]", r"item 2 .*line 2"),
        ("prompts = ['a']\nimport os\n", "more than one list"),
        ("prompts = ('a')", "more than one list"),
    ],
)
def test_bad_prompt_files_are_refused_and_never_executed(text, words):
    with pytest.raises(ValueError, match=words):
        parse_schedule(text)


PROSE = ["[a red ball] rolls", "('a red ball':1.2) rolls", "a = b", "the sign says x = [5]", "x == ['a']", "He says: x = 1"]
LATER = 'A man says.\n\nsubtitle = ("hello" she says)'


@pytest.mark.parametrize("text", PROSE)
def test_brackets_in_prose_are_prose(text):
    assert not is_plain_list(text, PromptSplit.PARAGRAPHS) and prompts_of(text) == (text,)


def test_a_list_begins_the_text_or_is_prose():
    assert prompts_of(LATER) == ("A man says.", 'subtitle = ("hello" she says)')
    assert prompts_of("import os\nprompts = ['a']\n") == ("import os prompts = ['a']",)


def test_prompts_between_bars():
    text = "# from another loop\n(a:1.2) cat\n\nwalks |  a dog|\n| [red] ball\n"
    assert prompts_of(text, PromptSplit.BARS) == ("(a:1.2) cat walks", "a dog", "[red] ball")
    assert prompts_of("one", PromptSplit.BARS) == ("one",)
    with pytest.raises(ValueError, match="no prompt"):
        parse_schedule(" | \n|", PromptSplit.BARS)


def test_a_python_list_keeps_what_its_strings_hold():
    assert prompts_of("prompts = ['a\u2028b\u2029c\x85d']") == ("a\u2028b\u2029c\x85d",)


PROSE_ONLY = st.characters(exclude_categories=["C", "Z", "N"], exclude_characters="#[=［【-*_~–—―─━═")


@given(st.lists(st.text(alphabet=PROSE_ONLY, min_size=1), min_size=1))
def test_paragraphs_round_trip(prompts):
    assert prompts_of("\n\n".join(prompts)) == tuple(prompts)
