"""The file of choices: what is read back, and what a bad file or a full disk does."""

import json
import sys

import pytest

from tests.nodes.conftest import PACK


@pytest.fixture(scope="module")
def choices(pack):
    return sys.modules[f"{PACK}.nodes.bridge.attention_choices"]


def test_choices_are_read_by_machine_and_shape(choices, tmp_path):
    path = tmp_path / "new" / "attention.json"
    first, second = (choices.StoredChoices(lambda: path) for _ in range(2))
    assert first.get("H200", "a") is None
    first.put("H200", "a", "cudnn")
    second.put("H200", "b", "flash")
    second.put("RTX", "a", "ComfyUI's")
    assert [first.get("H200", "a"), first.get("H200", "b"), first.get("RTX", "a")] == ["cudnn", "flash", "ComfyUI's"]
    assert first.get("RTX", "b") is None
    assert json.loads(path.read_text())["H200"] == {"a": "cudnn", "b": "flash"}


def test_a_choice_can_be_forgotten_and_the_others_stay(choices, tmp_path):
    stored = choices.StoredChoices(lambda: tmp_path / "attention.json")
    stored.put("H200", "a", "cudnn")
    stored.put("H200", "b", "flash")
    for _ in range(2):
        stored.forget("H200", "a")
    assert stored.get("H200", "a") is None and stored.get("H200", "b") == "flash"


@pytest.mark.parametrize("left", [{}, {"H200": {"b": "flash"}}])
def test_what_another_process_removes_meanwhile_is_forgotten(choices, tmp_path, monkeypatch, left):
    path = tmp_path / "attention.json"
    stored = choices.StoredChoices(lambda: path)
    path.write_text(json.dumps(left))
    monkeypatch.setattr(stored, "get", lambda *_: "cudnn")  # as it was before
    stored.forget("H200", "a")
    assert json.loads(path.read_text()) == left


@pytest.mark.parametrize("content", ["{", "[]", '{"H200": 3}', "\x00"])
def test_a_bad_file_is_named_and_replaced_at_the_next_choice(choices, tmp_path, caplog, content):
    path = tmp_path / "attention.json"
    path.write_text(content)
    stored = choices.StoredChoices(lambda: path)
    assert stored.get("H200", "a") is None and str(path) in caplog.text
    stored.put("H200", "a", "flash")
    assert stored.get("H200", "a") == "flash"


def test_a_value_that_is_no_name_is_no_choice(choices, tmp_path):
    path = tmp_path / "attention.json"
    path.write_text('{"H200": {"a": 3}}')
    assert choices.StoredChoices(lambda: path).get("H200", "a") is None


def test_a_choice_that_cannot_be_stored_is_named(choices, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "attention.json"  # below a file, where no folder can be
    choices.StoredChoices(lambda: path).put("H200", "a", "flash")
    assert f"could not be stored in {path}" in caplog.text


def test_the_file_lies_in_comfyuis_user_folder_where_that_is_now(choices, comfy, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    assert choices.comfyui_file() == tmp_path / "__svi" / "attention.json"
