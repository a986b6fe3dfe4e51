import pytest
from hypothesis import given
from hypothesis import strategies as st

from svi_core.prompts import PromptSplit, parse_prompts


def test_one_prompt_per_paragraph():
    text = "# a comment\na cat\nwalks  slowly\n\n \t\n\nit sits down\r\n\r\nit sleeps\n"
    assert parse_prompts(text) == ("a cat walks slowly", "it sits down", "it sleeps")


def test_one_prompt_per_line():
    assert parse_prompts("a\n\n# no\n b \n", PromptSplit.LINES) == ("a", "b")


@pytest.mark.parametrize("head", ["prompts = ", "", "# from SVI\nprompts=", "\ufeffprompts = ", "positive_prompts = "])
def test_the_files_of_svis_data_are_read_as_they_are(head):
    text = head + "[\n    'A cat, walking.',\n    # skipped\n    \"It's raining [hard].\",\n]\n"
    assert parse_prompts(text, PromptSplit.LINES) == ("A cat, walking.", "It's raining [hard].")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no prompt"),
        (" \n\n# only a comment\n", "no prompt"),
        ("prompts = []", "no prompt"),
        ("prompts = ['a', ", "cannot be read at line"),
        ("prompts = ['a', '']", "item 2 .* is empty"),
        ("prompts = ['a', 3]", r"item 2 of the prompt list \(line 1\) is not a plain string"),
        ("prompts = ['a',\n __import__('os').system('true')]", r"item 2 .*line 2"),
        ("prompts = ['a']\nimport os\n", "more than one list"),
    ],
)
def test_bad_prompt_files_are_refused_and_never_executed(text, words):
    with pytest.raises(ValueError, match=words):
        parse_prompts(text)


def test_brackets_in_prose_are_prose():
    assert parse_prompts("[a red ball] rolls") == ("[a red ball] rolls",)


@given(
    st.lists(st.text(alphabet=st.characters(exclude_categories=["C", "Z"], exclude_characters="#["), min_size=1), min_size=1)
)
def test_paragraphs_round_trip(prompts):
    assert parse_prompts("\n\n".join(prompts)) == tuple(prompts)
