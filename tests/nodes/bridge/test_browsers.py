"""Notices reach log and pages; without a server, the log."""

import logging
import sys
from types import SimpleNamespace

import pytest


@pytest.fixture
def browsers(bridge):
    return sys.modules[f"{bridge.__name__}.browsers"]


def test_notices_reach_page_and_log(browsers, monkeypatch, caplog):
    sent = []
    server = SimpleNamespace(send_sync=lambda event, news, page: sent.append((event, news, page)), client_id="asker")
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    with caplog.at_level(logging.INFO):
        browsers.warn("SVI Generate", "the rest is not made.")
        browsers.inform("SVI Generate", "its last prompt holds.")
    assert [(event, news["severity"], news["detail"], page) for event, news, page in sent] == [
        ("svi.notice", "warn", "the rest is not made.", "asker"),
        ("svi.notice", "info", "its last prompt holds.", "asker"),
    ]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "SVI Generate: the rest is not made."),
        ("INFO", "SVI Generate: its last prompt holds."),
    ]


def test_without_a_server_the_log_has_it(browsers, monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "server", raising=False)
    browsers.warn("SVI Generate", "text")
    assert "SVI Generate: text" in caplog.text
