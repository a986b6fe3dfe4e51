"""A text widget that names something on the disk leads nowhere else, in whatever node it is."""

import asyncio

import pytest

NAMES_A_FILE = {"filename_prefix", "file", "run"}
NAMES_NO_FILE = {"text", "name", "subject", "place", "style", "prefix", "suffix"}
LEADING_ELSEWHERE = [
    "../x", "a/../../x", "/etc/passwd", "..\\x", "C:\\x", "\\\\server\\x", "a\0b", "\0", "", "~/x", "a/../b/../../x",
]  # fmt: skip


@pytest.fixture(scope="module")
def text_widgets(pack):
    """(node class, input id) of every text widget of the pack."""
    from comfy_api.latest import io

    async def listed():
        return await (await pack.comfy_entrypoint()).get_node_list()

    nodes = asyncio.run(listed())
    return [(node, entry.id) for node in nodes for entry in node.define_schema().inputs if isinstance(entry, io.String.Input)]


def test_it_is_known_of_every_text_widget_whether_it_names_a_file(text_widgets):
    assert {name for _, name in text_widgets} == NAMES_A_FILE | NAMES_NO_FILE


@pytest.mark.parametrize("text", LEADING_ELSEWHERE, ids=repr)
def test_names_that_lead_elsewhere_are_refused_when_queued(text_widgets, text):
    for node, name in text_widgets:
        if name in NAMES_A_FILE and (text or name != "run"):  # an empty run means that a video is connected
            complaint = node.validate_inputs(**{name: text})
            assert isinstance(complaint, str) and name in complaint, (node.__name__, complaint)
