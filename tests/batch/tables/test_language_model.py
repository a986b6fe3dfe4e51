"""An OpenAI-compatible address: what is asked, tried again and refused; the key reaches that address only."""

import base64

import pytest

from batch.tables import language_model
from batch.tables.language_model import KEY_VARIABLE, LanguageModel
from tests.batch.tables.fake_language_model import FakeLanguageModel
from tests.conftest import draw_reference

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(language_model, "WAIT_SECONDS", 0.0)
    monkeypatch.setenv(KEY_VARIABLE, KEY)


def test_the_instruction_is_asked_and_the_text_returned(tmp_path):
    with FakeLanguageModel("1. A cat sits.") as server:
        model = LanguageModel(server.url + "/", "tiny")
        assert model.answer("write", tmp_path / "unused.png", 300, 7) == "1. A cat sits."
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions" and asked["model"] == "tiny"
    assert asked["messages"] == [{"role": "user", "content": "write"}] and (asked["max_tokens"], asked["seed"]) == (300, 7)
    assert server.keys == [f"Bearer {KEY}"]


def test_a_model_that_sees_gets_the_image(tmp_path):
    draw_reference(tmp_path / "cat.png")
    with FakeLanguageModel("text") as server:
        LanguageModel(server.url, "tiny", sees_images=True).answer("write", tmp_path / "cat.png", 300, 0)
    text, image = server.asked[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "write"}
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(data) == (tmp_path / "cat.png").read_bytes()


def test_a_busy_server_is_asked_again(tmp_path):
    with FakeLanguageModel(503, 429, "text") as server:
        assert LanguageModel(server.url, "tiny").answer("write", tmp_path, 300, 0) == "text"
    assert len(server.asked) == 3


@pytest.mark.parametrize("status, times", [(401, 1), (404, 1), (500, 3)])
def test_a_refusal_names_the_address_and_hides_the_key(tmp_path, status, times):
    with FakeLanguageModel(status) as server, pytest.raises(ValueError, match=f"{server.url} answers {status}") as refused:
        LanguageModel(server.url, "tiny").answer("write", tmp_path, 300, 0)
    assert len(server.asked) == times
    assert KEY not in str(refused.value) and "Bearer ..." in str(refused.value)


def test_a_key_is_stripped_and_one_with_control_characters_refused_unseen(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, f" {KEY}\r\n")
    with FakeLanguageModel("text") as server:
        LanguageModel(server.url, "tiny").answer("write", tmp_path, 300, 0)
        assert server.keys == [f"Bearer {KEY}"]
        for bad in (f"{KEY}\r\nHost: elsewhere", f"{KEY}\x00", f"{KEY} {KEY}", f"{KEY}\u2026"):
            monkeypatch.setattr(language_model.os, "environ", {KEY_VARIABLE: bad})
            with pytest.raises(ValueError, match=f"{KEY_VARIABLE} holds a letter that no key has") as refused:
                LanguageModel(server.url, "tiny")
            assert KEY not in str(refused.value)
    assert len(server.asked) == 1


def test_no_part_of_the_key_is_left_where_a_refusal_is_cut(tmp_path, monkeypatch):
    key = "sk-" + "k" * 600
    monkeypatch.setenv(KEY_VARIABLE, key)
    with FakeLanguageModel(401) as server, pytest.raises(ValueError, match="answers 401") as refused:
        LanguageModel(server.url, "tiny").answer("write", tmp_path, 300, 0)
    assert "kkk" not in str(refused.value) and "Bearer ..." in str(refused.value)


def test_no_proxy_sees_the_key(tmp_path, monkeypatch):
    with FakeLanguageModel("text") as server, FakeLanguageModel("proxied") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert LanguageModel(server.url, "tiny").answer("write", tmp_path, 300, 0) == "text"
    assert not proxy.asked


def test_no_redirect_carries_the_key_elsewhere(tmp_path):
    with (
        FakeLanguageModel("text") as other,
        FakeLanguageModel(other.url) as server,
        pytest.raises(ValueError, match="answers 302"),
    ):
        LanguageModel(server.url, "tiny").answer("write", tmp_path, 300, 0)
    assert not other.asked


def test_an_empty_answer_and_no_server_are_named(tmp_path):
    with FakeLanguageModel(" ") as server, pytest.raises(ValueError, match="holds no text at choices"):
        LanguageModel(server.url, "tiny").answer("write", tmp_path, 300, 0)
    with pytest.raises(ValueError, match=f"{server.url} gives no answer"):
        LanguageModel(server.url, "tiny").answer("write", tmp_path, 300, 0)
    with pytest.raises(ValueError, match="is no address"):
        LanguageModel("127.0.0.1:8080", "tiny")
