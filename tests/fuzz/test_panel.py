"""Requests to the clip panel and the storyboard: an answer or 4xx with a sentence, never 500, and nothing appears on disk."""

import asyncio
import io
import json
import logging
import sys

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import strategies as st

from svi_core.store.run_store import RunStore, chain_key
from tests.core.store.test_run_store import latent, record
from tests.fuzz.odd_texts import NUMBERS, odd_texts

KEY = chain_key(None, "a")
RUNS = st.sampled_from(
    ("run", "run/", "./run", "", "..", "/etc", "loop/run", "run/clips", "a" * 300, "/".join(["a" * 100] * 50))
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 20), st.integers(), st.floats(), odd_texts(), st.just([]), st.just({"a": {}})
)
ACTIONS = (
    "set_prompt", "set_option", "insert", "duplicate", "delete", "split", "move", "pin", "unpin", "reroll", "as_paragraphs",
    "replace", "sing",
)  # fmt: skip
ASKED = (
    st.dictionaries(st.sampled_from(("clip", "to", "at", "seed", "prompt", "name", "value", "key", "new_text")), VALUES).map(
        lambda action: {"do": "move", "clip": 0, "to": 1, "prompt": "a", "name": "cfg", "value": "2", **action}
    )
    | st.sampled_from(ACTIONS).map(lambda kind: {"do": kind, "clip": 0, "to": 1, "prompt": "b", "name": "cut", "key": KEY})
    | VALUES
)
LINKS = st.sampled_from((["1", 0], ["2", 0], ["3", 0], ["9", 1], [1, 0], []))
WIDGETS = st.dictionaries(
    st.sampled_from(
        ("prompts", "text", "split", "num_clips", "seed", "seed_mode", "filename_prefix", "layout", "value", "sigmas")
    ),
    LINKS | VALUES | st.sampled_from(("a cat\n\na dog", "paragraphs", "per clip", "run", 3)),
)
NODES = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from(("SVIGenerate", "SVIPromptStream", "SVILiveSchedule", "SVILayout", "Any")),
        "inputs": WIDGETS,
    }
)
GRAPHS = st.dictionaries(st.sampled_from(("1", "2", "3", "12:3")), NODES | VALUES, max_size=4)
FIELDS = {
    "run": RUNS | odd_texts("run", "/", "..", "~") | VALUES,
    "key": st.sampled_from((KEY, KEY[:-1], KEY.upper(), "../" + KEY)) | VALUES,
    "keep": st.booleans() | VALUES,
    "text": odd_texts("[seed 7]\n", "\n\n", "a cat", "[x3]\n", "prompts = [", max_size=10) | VALUES,
    "split": st.sampled_from(("paragraphs", "lines", "words")) | VALUES,
    "index": st.integers(-1, 12) | VALUES,
    "file": st.sampled_from((f"{KEY}-a.mp4", "../a.mp4", "schedule.txt", "../run/x")) | VALUES,
    "actions": st.lists(ASKED, max_size=3) | VALUES,
    "num_clips": st.integers(-1, 12) | VALUES,
    "prompt": GRAPHS | VALUES,
    "node": st.sampled_from(("1", "2", None)) | VALUES,
}
GOOD = {"run": "run", "key": KEY, "keep": False, "text": "a cat\n\na dog", "split": "paragraphs", "index": 1, "file": None}
BODIES = st.fixed_dictionaries({}, optional=FIELDS).map(lambda given: json.dumps({**GOOD, **given}).encode())
RAW = st.one_of(
    BODIES,
    st.builds(lambda number: b'{"index": ' + number.encode() + b"}", NUMBERS),
    st.sampled_from((b"", b"null", b"[]", b'"a"', b"[" * 50_000, b'{"a":' * 50_000, b"\xff", b'{"a": 1, "a": 2}')),
    st.sampled_from((1, 9)).map(lambda count: b'{"text": "' + b"a" * (count << 20) + b'"}'),
    st.binary(max_size=40),
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content-Type": st.sampled_from(("application/json", "text/plain; charset=klingon", "multipart/form-data", "")),
        "Content-Encoding": st.sampled_from(("gzip", "deflate", "identity")),
    },
)
REQUESTS = st.tuples(
    st.sampled_from(
        (
            ("GET", "/svi/clips"),
            ("POST", "/svi/keep"),
            ("POST", "/svi/reroll"),
            ("PUT", "/svi/keep"),
            ("GET", "/svi/x"),
            ("POST", "/svi/plan"),
            ("POST", "/svi/edit"),
            ("POST", "/svi/edit"),
            ("GET", "/svi/takes"),
            ("GET", "/svi/picture"),
        )
    ),
    RAW,
    HEADERS,
    RUNS | odd_texts("run", "/"),
)


@pytest.fixture
def output(tmp_path, pack, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    with RunStore(tmp_path / "run") as store:
        store.save_latent(record(KEY), latent())
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "run" / "finished.jsonl").write_bytes(
        b'{"index": 0}\n[\n' + b"[" * 50_000 + b'\n{"index": ' + b"1" * 5000 + b"}\n"
    )
    return tmp_path


def test_the_panel(campaign, pack, output, caplog):
    caplog.set_level(logging.CRITICAL, "aiohttp.server")  # it logs each body that it cannot decode
    routes, app = web.RouteTableDef(), web.Application()
    sys.modules[f"{pack.__name__}.nodes.clip_panel"].add_clip_routes(routes)
    sys.modules[f"{pack.__name__}.nodes.storyboard.routes"].add_storyboard_routes(routes)
    app.add_routes(routes)
    loop = asyncio.new_event_loop()
    client = TestClient(TestServer(app), loop=loop)
    loop.run_until_complete(client.start_server())

    async def ask(route: tuple[str, str], body: bytes, headers: dict, run: str) -> tuple[int, str, bool]:
        if len(body) > 1 << 16:  # aiohttp's client waits when its server stops reading a body that is not what it claims
            headers = {name: value for name, value in headers.items() if name != "Content-Encoding"}
        query = (
            {"params": {"run": run[:2000].encode(errors="replace").decode()}}
            if route[0] == "GET"
            else {"data": io.BytesIO(body)}
        )
        async with client.request(*route, headers=headers, **query) as answer:
            return answer.status, await answer.text(), answer.content_type == "application/json"

    def files() -> list[str]:
        return sorted(
            path.relative_to(output).as_posix() for path in output.rglob("*") if path.suffix not in (".keep", ".lock")
        )

    before = files()

    def check(request: tuple) -> str:
        status, text, is_ours = loop.run_until_complete(ask(*request))
        if status == 200:
            json.loads(text)
            return "answered"
        assert 400 <= status < 500, f"{status}: {text}"
        assert is_ours or status in (404, 405) or "Content-Encoding" in request[2], (
            text
        )  # aiohttp may refuse an encoding itself
        if is_ours:
            reason = json.loads(text)["error"]
            assert " " in reason and len(reason) < 700 and "codec" not in reason, reason
        assert files() == before
        return f"refused with {status}"

    try:
        outcomes = {"answered", "refused with 400", "refused with 404", "refused with 405", "refused with 413"}
        assert campaign.run("panel", REQUESTS, check, outcomes, limit=20, at_least=100)
    finally:
        loop.run_until_complete(client.close())
        loop.close()
