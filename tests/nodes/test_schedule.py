"""SVI Prompt Stream: a list of texts from another node is one story."""

import logging

import pytest


class Encoder:
    """A CLIP that remembers which prompts it encoded."""

    def __init__(self):
        self.prompts = []

    def tokenize(self, prompt):
        return prompt

    def encode_from_tokens_scheduled(self, prompt):
        self.prompts.append(prompt)
        return [prompt]


@pytest.fixture
def stream(pack):
    return pack.nodes.SVIPromptStream


def run(stream, texts, splits=("paragraphs",), encoders=None):
    encoders = encoders or [Encoder()]
    prompts, num_prompts = stream.execute(clip=encoders, text=list(texts), split=list(splits)).result
    assert encoders[0].prompts == prompts.schedule.prompts
    return prompts.schedule, num_prompts


def test_a_list_of_texts_is_one_story(stream):
    assert stream.GET_SCHEMA().is_input_list
    schedule, num_prompts = run(stream, ["a cat", "[seed 7, x2]\na dog", "1. an owl"])
    assert [schedule.at(index).prompt for index in range(4)] == ["a cat", "a dog", "a dog", "1. an owl"]
    assert (num_prompts, schedule.at(1).seed) == (4, 7)


def test_one_text_is_read_as_before(stream):
    schedule, num_prompts = run(stream, ["a\n\nb"])
    assert (schedule.prompts, num_prompts) == (["a", "b"], 2)
    assert run(stream, ["a\nb"], ["lines"])[1] == 2


@pytest.mark.parametrize(
    ("texts", "splits", "message"),
    [
        (["a", "b\n\nc"], ["paragraphs"], "text is a list of 2 texts, and text 2 holds 2 prompts: a list is one story"),
        (["a", ""], ["paragraphs"], "text 2 of 2: the prompt stream holds no prompt"),
        (["a", "[sede 3]\nb"], ["paragraphs"], "text 2 of 2: schedule, line 1, column 2: option 'sede 3' is not known"),
        (["[x6000]\na", "[x6000]\nb"], ["paragraphs"], "asks for 12000 clips"),
        (["a", "b"], ["paragraphs", "lines"], "split is a list of 2 different values: connect one"),
    ],
)
def test_a_list_that_is_not_clear_is_refused(stream, texts, splits, message):
    with pytest.raises(ValueError, match=message):
        run(stream, texts, splits)
    assert message[:20] in stream.validate_inputs(text=texts, split=splits)


def test_several_encoders_are_refused(stream):
    with pytest.raises(ValueError, match="clip is a list of 2 different values"):
        run(stream, ["a"], encoders=[Encoder(), Encoder()])


def test_a_linked_text_is_not_judged_before_it_is_known(stream):
    assert stream.validate_inputs(text=(None,), split=["paragraphs"]) is True
    assert stream.validate_inputs(text=["a"], split=["paragraphs"]) is True
    assert "is not known" in stream.validate_inputs(text=["[sede 3]\na"], split=["paragraphs"])


def test_what_may_have_been_meant_otherwise_is_in_the_log(stream, caplog):
    with caplog.at_level(logging.WARNING):
        run(stream, ["a cat | a dog"])
    assert "SVI Prompt Stream: schedule, line 1, column 7: '|' is part of the prompt" in caplog.text
