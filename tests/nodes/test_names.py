"""A text widget that names something on the disk leads nowhere else, in whatever node it is."""

import asyncio
import os
import sys

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


@pytest.mark.parametrize("text", ["a\ud800", "a" * 300, "loop/x"], ids=ascii)
def test_names_that_no_file_can_have_are_refused_when_queued(text_widgets, text, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for node, name in text_widgets:
        if name in NAMES_A_FILE and (name == "file" or text != "loop/x"):
            complaint = node.validate_inputs(**{name: text})
            assert isinstance(complaint, str) and name in complaint and "codec" not in complaint, (node.__name__, complaint)


def test_half_a_character_in_a_prompt_is_refused_when_queued(pack):
    module = sys.modules[f"{pack.__name__}.nodes.schedule"]
    complaint = module.SVIPromptStream.validate_inputs(text=["a cat\n\na \ud83d dog"], split=["paragraphs"])
    assert complaint == (
        "text, line 3, column 3: '\\ud83d' is half a character (a lone surrogate), which cannot be saved: delete it."
    )


def test_a_live_file_that_cannot_be_read_does_not_disturb_the_queue(pack, tmp_path, monkeypatch):
    import folder_paths

    module = sys.modules[f"{pack.__name__}.nodes.schedule"]
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    for file, reason in (("pipe.txt", "is a pipe"), ("latin.txt", "is not UTF-8 text"), ("gone.txt", "cannot be read")):
        assert reason in module.SVILiveSchedule.fingerprint_inputs(file=file)
        assert reason in module.SVILiveSchedule.validate_inputs(file=file)


@pytest.mark.parametrize("text", LEADING_ELSEWHERE, ids=repr)
def test_names_that_lead_elsewhere_are_refused_when_queued(text_widgets, text):
    for node, name in text_widgets:
        if name in NAMES_A_FILE and (text or name != "run"):  # an empty run means that a video is connected
            complaint = node.validate_inputs(**{name: text})
            assert isinstance(complaint, str) and name in complaint, (node.__name__, complaint)
