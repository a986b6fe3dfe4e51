"""The clip panel's routes and events: what the browser is told, and what it is refused."""

import asyncio
import gzip
import io
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

RUN = "svi/my story ü"
PROMPT = "a cat <img src=x onerror=alert(1)> \u2028 ü"


@pytest.fixture
def panel(pack):
    return sys.modules[f"{pack.__name__}.nodes.clip_panel"]


@pytest.fixture
def core(pack):
    def module(name):
        return sys.modules[f"{pack.__name__}.svi_core.{name}"]

    return module


@pytest.fixture
def output(tmp_path, pack):
    import folder_paths

    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path / "output"))
    (tmp_path / "output").mkdir()
    yield tmp_path / "output"
    folder_paths.set_output_directory(before)


@pytest.fixture
def news(panel, monkeypatch):
    """What was sent to the browsers."""
    sent = []
    server = SimpleNamespace(send_sync=lambda event, data: sent.append((event, data)))
    monkeypatch.setattr(panel, "running_server", lambda: server)
    return sent


def finish_clips(panel, core, folder, num_clips=3, reused=()):
    """Store clips as a run does, tell of each, and return their keys."""
    store_module, keys = core("store.run_store"), []
    with store_module.RunStore(folder) as store:
        video = SimpleNamespace(store=store, clips=[], segments=[])
        tell = panel.tell_browsers(video, "12")
        for index in range(num_clips):
            key = store_module.chain_key(None, index)
            measures = {"sample_seconds": 2.0 + index, "decode_seconds": 0.5}
            record = store_module.ClipRecord(key, index, PROMPT, 42 * index, {}, measures=measures)
            store.save_latent(record, torch.zeros(1, 16, 1, 2, 2))
            video.clips.append(store_module.ShownClip(key, PROMPT, 42 * index, 76))
            video.segments.append(store.segment_path(key, "5-81-0-h264-crf18-yuv420p"))
            request = SimpleNamespace(index=index, seed=42 * index, spec=SimpleNamespace(prompt=PROMPT))
            tell(SimpleNamespace(key=key, request=request, reused=index in reused))
            keys.append(key)
    return keys


def ask(panel, *requests):
    """Send requests (method, path, keyword arguments) to a server with the panel's routes; return (status, JSON) of each."""

    async def exchange():
        app, routes = web.Application(), web.RouteTableDef()
        panel.add_clip_routes(routes)
        app.add_routes(routes)
        async with TestClient(TestServer(app)) as client:
            answers = []
            for method, path, options in requests:
                async with client.request(method, path, **options) as answer:
                    answers.append((answer.status, await answer.json()))
            return answers

    return asyncio.run(exchange())


def clips_of(panel, run=RUN):
    ((status, answer),) = ask(panel, ("GET", "/svi/clips", {"params": {"run": run}}))
    assert status == 200, answer
    return answer["clips"]


def test_a_finished_clip_is_told_and_listed_alike(panel, core, output, news):
    keys = finish_clips(panel, core, output / RUN, reused=[0])
    assert [event for event, _ in news] == ["svi.clip"] * 3
    expected = {
        "index": 1,
        "key": keys[1],
        "prompt": PROMPT,
        "seed": 42,
        "num_frames": 76,
        "seconds": 3.5,
        "reused": False,
        "kept": False,
        "file": {
            "filename": f"{keys[1]}-5-81-0-h264-crf18-yuv420p.mp4",
            "subfolder": f"{RUN}/clips",
            "type": "output",
        },
    }
    assert news[1][1] == {"node": "12", "run": RUN} | expected
    clips = clips_of(panel)
    assert clips[1] == expected and [clip["reused"] for clip in clips] == [True, False, False]


def test_a_new_run_in_the_folder_lists_its_own_clips(panel, core, output, news):
    finish_clips(panel, core, output / RUN, 3)
    finish_clips(panel, core, output / RUN, 1, reused=[0])
    assert [clip["reused"] for clip in clips_of(panel)] == [True]


def test_without_a_server_clips_are_listed_all_the_same(panel, core, output, monkeypatch):
    monkeypatch.setattr(panel, "running_server", lambda: None)
    finish_clips(panel, core, output / RUN, 2)
    panel.serve_clips()
    assert len(clips_of(panel)) == 2


def test_keep_is_written_while_the_run_goes_on(panel, core, output, news):
    keys = finish_clips(panel, core, output / RUN)
    with core("store.run_store").RunStore(output / RUN) as store:  # the running run's lock
        answers = ask(
            panel,
            ("POST", "/svi/keep", {"json": {"run": RUN, "key": keys[0], "keep": True}}),
            ("POST", "/svi/keep", {"json": {"run": RUN, "key": keys[1], "keep": True}}),
            ("POST", "/svi/keep", {"json": {"run": RUN, "key": keys[1], "keep": False}}),
        )
        expected = [(keys[0], True), (keys[1], True), (keys[1], False)]
        assert answers == [(200, {"key": key, "kept": kept}) for key, kept in expected]
        assert set(core("store.space").prune(store.folder, 1, set())) == {keys[1], keys[2]}
    assert [clip["kept"] for clip in clips_of(panel)] == [True, False, False]


def test_a_folder_without_a_run_has_no_clips_and_is_not_created(panel, output):
    assert clips_of(panel, "svi/none") == []
    assert not (output / "svi").exists()


BAD_RUNS = ["", "..", "../x", "/etc", "a/../../x", "a\\b", "C:x", "a\0b", "~", "nul", "a" * 300, "\ud800"]


@pytest.mark.parametrize("run", BAD_RUNS, ids=ascii)
def test_a_name_that_leads_out_of_the_output_folder_is_refused(panel, output, run):
    with pytest.raises(ValueError):
        panel.list_clips({"run": run})
    with pytest.raises(ValueError):
        panel.keep_clip({"run": run, "key": "f" * 64, "keep": True})
    assert list(output.parent.iterdir()) == [output]


def test_a_link_that_leads_out_of_the_output_folder_is_refused(panel, core, output, news, tmp_path):
    keys = finish_clips(panel, core, tmp_path / "elsewhere" / "run", 0) or ["f" * 64]
    (output / "link").symlink_to(tmp_path / "elsewhere")
    for request in (
        ("GET", "/svi/clips", {"params": {"run": "link/run"}}),
        ("POST", "/svi/keep", {"json": {"run": "link/run", "key": keys[0], "keep": True}}),
    ):
        ((status, answer),) = ask(panel, request)
        assert status == 400 and "leads out of the output folder" in answer["error"]


@pytest.mark.parametrize("name", ["finished.jsonl", "clips"])
def test_a_link_planted_in_the_run_s_folder_is_not_followed(panel, core, output, news, tmp_path, name):
    """The list of another folder was shown, and marks were written into it."""
    (key, *_) = finish_clips(panel, core, output / RUN)
    elsewhere = tmp_path / "elsewhere"
    (output / RUN).rename(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    (output / RUN).mkdir(parents=True)
    (output / RUN / name).symlink_to(elsewhere / name)
    for request in (
        ("GET", "/svi/clips", {"params": {"run": RUN}}),
        ("POST", "/svi/keep", {"json": {"run": RUN, "key": key, "keep": True}}),
    ):
        ((status, answer),) = ask(panel, request)
        assert status == 400 and f"{name} is a link that leads out of the run's folder" in answer["error"]
    assert sorted(elsewhere.rglob("*")) == before


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"run": "../x", "key": "f" * 64, "keep": True}, "filename_prefix is '../x'"),
        ({"run": RUN, "key": "../../x", "keep": True}, "64 hex digits"),
        ({"run": RUN, "key": "f" * 64, "keep": True}, "there is no clip 'ffff"),
        ({"run": RUN, "key": "f" * 64, "keep": 1}, "keep is '1': send a value of type bool"),
        ({"run": 7, "key": "f" * 64, "keep": True}, "run is '7': send a value of type str"),
        ({"key": "f" * 64, "keep": True}, "run is 'None'"),
        ([], "the request is a JSON list"),
        ("x", "the request is a JSON str"),
    ],
    ids=str,
)
def test_wrong_requests_are_answered_with_the_reason(panel, output, body, reason):
    ((status, answer),) = ask(panel, ("POST", "/svi/keep", {"json": body}))
    assert status == 400 and reason in answer["error"]
    assert list(output.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON (Expecting value at line 1, column 1)"),
        (b'{"index": 1', "not JSON"),
        (b'{"text": "\xff"}', "not UTF-8: byte 0xff at 10"),
        ('{"text": "a"}'.encode("utf-16"), "not UTF-8: byte 0xff at 0"),
        (b"[" * 100_000, "nested more than 64 levels deep"),
        (b'{"index": ' + b"7" * 5000 + b"}", "a number of 5000 digits"),
        (b'{"index": 1e999}', "the number 1e999"),
        (b'{"index": NaN}', "the value NaN"),
        (b'{"index": 1, "index": 2}', "the key 'index' twice"),
        (b'{"text": "a \\ud800"}', r"line 1, column 3: '\ud800' is half a character"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_sound_json_is_answered_with_the_reason(panel, output, body, reason):
    ((status, answer),) = ask(panel, ("POST", "/svi/reroll", {"data": body}))
    assert status == 400 and reason in answer["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=klingon"},
        {"Content-Type": "text/plain; charset=utf-7"},
        {"Content-Type": ""},
    ],
    ids=str,
)
def test_json_is_utf_8_whatever_charset_a_request_names(panel, headers):
    body = json.dumps({"text": "ä cat", "split": "paragraphs", "index": 0}, ensure_ascii=False).encode()
    ((status, answer),) = ask(panel, ("POST", "/svi/reroll", {"data": body, "headers": headers}))
    assert status == 200 and answer["text"].endswith("ä cat")


def test_a_body_that_only_claims_to_be_compressed_is_answered_with_the_reason(panel):
    options = {"data": b"not gzip", "headers": {"Content-Encoding": "gzip"}, "compress": False}
    ((status, answer),) = ask(panel, ("POST", "/svi/reroll", options))
    assert status == 400 and "cannot be decoded" in answer["error"]


def test_a_huge_body_is_refused_and_read_no_further(panel):
    """Also one that is small until it is unpacked."""
    huge = b'{"text": "' + b"a" * (60 << 20) + b'"}'
    packed = {"data": gzip.compress(huge, 1), "headers": {"Content-Encoding": "gzip"}}
    for options in ({"data": io.BytesIO(huge)}, packed):
        ((status, answer),) = ask(panel, ("POST", "/svi/reroll", options))
        assert status == 413 and answer["error"] == "the request is larger than 8 MiB: send a shorter text."


def test_a_folder_behind_a_loop_of_links_or_a_path_without_end_is_answered_with_the_reason(panel, output):
    (output / "loop").symlink_to(output / "loop")
    for run, reason in (("loop/run", "a link in it may lead to itself"), ("/".join(["a" * 120] * 40), "a path of 4")):
        requests = (
            ("GET", "/svi/clips", {"params": {"run": run}}),
            ("POST", "/svi/keep", {"json": {"run": run, "key": "f" * 64, "keep": True}}),
        )
        for status, answer in ask(panel, *requests):
            assert status == 400 and reason in answer["error"]


def test_a_folder_that_cannot_be_written_is_answered_with_the_reason(panel, core, output, news, monkeypatch):
    (key,) = finish_clips(panel, core, output / RUN, 1)

    def fail(*_):
        raise PermissionError(13, "Permission denied", str(output))

    monkeypatch.setattr(panel, "set_keep", fail)
    ((status, answer),) = ask(panel, ("POST", "/svi/keep", {"json": {"run": RUN, "key": key, "keep": True}}))
    assert status == 500 and "Permission denied" in answer["error"]


def test_reroll_gives_the_text_with_a_new_seed_each_time(panel):
    text = "# my story\na cat\n\n[seed 7, cut]\na dog"
    body = {"text": text, "split": "paragraphs", "index": 1}
    answers = ask(panel, *[("POST", "/svi/reroll", {"json": body})] * 3)
    for status, answer in answers:
        assert status == 200 and answer["text"] == text.replace("seed 7", f"seed {answer['seed']}")
    assert len({answer["seed"] for _, answer in answers}) == 3


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"text": "[sed 7]\na"}, "line 1, column 2: option 'sed 7' is not known"),
        ({"split": "lines"}, "takes no options"),
        ({"split": "words" * 1000}, f"split is '{'words' * 16}': send one of paragraphs, lines, bars."),
        ({"index": -1}, "clip is -1"),
        ({"index": 10**9}, "a run has at most 10000"),
        ({"index": True}, "index is 'True': send a value of type int"),
        ({"text": None}, "text is 'None'"),
    ],
    ids=str,
)
def test_a_reroll_that_cannot_be_is_answered_with_the_reason(panel, changed, reason):
    body = {"text": "a", "split": "paragraphs", "index": 0} | changed
    ((status, answer),) = ask(panel, ("POST", "/svi/reroll", {"json": body}))
    assert status == 400 and reason in answer["error"], json.dumps(answer)
