"""The storyboard's routes: a queued graph as cards, edits of its text, takes, pictures, and what is refused."""

import asyncio
import io
import json
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from tests.e2e.graphs import loop_graph, node
from tests.nodes.dry_run.test_plan import change, folders, module  # noqa: F401 (fixtures)

TEXT = "# story\n\na cat 🐈\n\n[seed 7, cfg 3.5]\na dog\n\n[cut, hold 4, x2]\nan owl\n"
RUN = "svi/board"


@pytest.fixture
def graph(folders):  # noqa: F811
    return loop_graph("picture.png", prompts=[TEXT], clips=4, filename_prefix=RUN)


@pytest.fixture
def core(pack):
    return lambda name: sys.modules[f"{pack.__name__}.svi_core.{name}"]


@pytest.fixture
def ask(module):  # noqa: F811
    """Send one request to a server with the storyboard's routes; return status and answer."""

    def send(method, path, **options):
        async def exchange():
            app, routes = web.Application(), web.RouteTableDef()
            module("storyboard.routes").add_storyboard_routes(routes)
            app.add_routes(routes)
            async with TestClient(TestServer(app)) as client, client.request(method, path, **options) as answer:
                is_json = answer.content_type == "application/json"
                return answer.status, await (answer.json() if is_json else answer.read())

        return asyncio.run(exchange())

    return send


@pytest.fixture
def plan(ask):
    def send(graph, **more):
        status, answer = ask("POST", "/svi/plan", json={"prompt": graph, **more})
        assert status == 200, answer
        return answer

    return send


@pytest.fixture
def edit(ask):
    def send(text, split="paragraphs", more=None, actions=None, **action):
        return ask("POST", "/svi/edit", json={"text": text, "split": split, "actions": actions or [action], **(more or {})})

    return send


@pytest.fixture
def make(core, module, folders):  # noqa: F811
    """Store clips of a graph as a run does, with a video segment for each, and return their keys."""

    def store(graph, indices=range(4), note=True):
        read = module("storyboard.asked_run").read_asked_run({"prompt": graph}).run
        plan, keys, before = read.plan, [], None
        chain, videos = core("clips.chain"), core("video.video_file")
        maker = SimpleNamespace(
            begin=lambda request: None,
            determinants=lambda request: (request.spec.prompt, request.seed, request.spec.cfg),
            sample=lambda request, previous: torch.full((1, 16, request.layout.num_slots, 8, 8), float(request.seed)),
            measures=lambda request: {"num_steps": 3, "num_passes": 2},
            decode=None,
        )
        with core("store.run_store").RunStore(read.folder) as opened:
            for request, showing in plan.walk():
                if request.index not in indices:
                    break
                before = chain.make_clip(plan, maker, opened, request, before)
                name = f"{showing.name}-h264-crf18-yuv420p"
                path = opened.segment_path(before.key, name)
                level = 60 + 40 * request.index
                frames = (np.full((1, 64, 64, 3), level + frame % 5, np.uint8) for frame in range(showing.num_frames))
                if not path.exists():
                    written = videos.write_video(path, frames, replace(read.coding))
                    opened.add_segment(before.key, name, written.num_frames, written.sha256, {})
                keys.append(before.key)
                if note:
                    finished = core("store.finished_clips")
                    facts = (request.index, before.key, request.spec.prompt, request.seed, showing.num_frames, 2.0, False)
                    finished.note_finished(read.folder, finished.FinishedClip(*facts, path.name))
        return keys

    return store


def states(answer):
    return [card["state"] for card in answer["cards"]]


def test_a_new_graph_is_planned(graph, plan):
    answer = plan(graph)
    assert answer["errors"] == [] and answer["node"] == "generate"
    assert answer["nodes"] == [{"id": "generate", "title": "SVI Generate"}]
    header = answer["header"]
    assert (header["run"], header["clips"], header["listed"], header["num_clips"]) == (RUN, 4, 4, 4)
    assert (header["ready"], header["planned"], header["to_make"], header["size"]) == (0, 4, 4, [64, 64])
    assert header["anchors"] == ["main"] and header["video"] is None
    assert states(answer) == ["planned"] * 4
    card = answer["cards"][1]
    assert card["set"] == {"seed": "7", "cfg": "3.5"} and card["prompt"] == "a dog"
    assert card["effective"] == {
        "seed": 7, "frames": 9, "motion": 5, "cfg": 3.5, "anchor": "main", "loras": [], "seam": "linear", "cut": False,
        "end": None, "hold": 0, "take": None,
    } or card["effective"]["motion"] != 5  # fmt: skip
    assert (card["key"], card["picture"], card["take"], card["badges"]) == (None, None, None, [])
    last = answer["cards"][3]
    assert last["set"] == {"hold": "4"} and last["place"]["repetition"] == 1 and last["place"]["of"] == 2
    assert answer["cards"][2]["set"] == {"cut": ""}


def test_places_count_as_a_browser_does(graph, plan):
    answer = plan(change(graph, "prompts", text=TEXT.replace("\n", "\r\n")))
    text, units = answer["source"]["text"], answer["source"]["text"].encode("utf-16-le")
    place = answer["cards"][1]["place"]
    assert units[2 * place["start"] : 2 * place["stop"]].decode("utf-16-le") == "[seed 7, cfg 3.5]\r\na dog"
    assert (place["line"], place["end_line"]) == (5, 6) and text.count("🐈") == 1


def test_stored_clips_are_ready_and_changes_outdate_with_a_reason(graph, plan, make):
    keys = make(graph)
    answer = plan(graph)
    assert states(answer) == ["ready"] * 4 and answer["header"]["ready"] == 4
    assert [card["key"] for card in answer["cards"]] == keys
    assert answer["cards"][0]["take"] == {"number": 1, "count": 1, "pinned": False, "follows": True}
    assert answer["cards"][1]["preview"]["subfolder"] == f"{RUN}/clips"
    for text, expected in (
        (TEXT.replace("a dog", "a wolf"), ["", "the prompt changed", "", ""]),
        (TEXT.replace("seed 7", "seed 8"), ["", "the seed changed", "", ""]),
        (TEXT.replace("cfg 3.5", "cfg 4"), ["", "cfg changed", "", ""]),
        (TEXT.replace("a cat", "a cow"), ["the prompt changed", "clip 1 changed", "", ""]),
        (TEXT.replace("cut, ", ""), ["", "", "cut changed", "clip 3 changed"]),
    ):
        found = plan(change(graph, "prompts", text=text))
        assert [card["reason"] for card in found["cards"]] == expected, text
        assert states(found) == ["outdated" if reason else "ready" for reason in expected]
        assert [card["by_before"] for card in found["cards"]] == [reason.startswith("clip ") for reason in expected]
    found = plan(change(graph, "sigmas", steps=4))
    assert [card["reason"] for card in found["cards"]] == [
        "the graph changed", "clip 1 changed", "the graph changed", "clip 3 changed",
    ]  # fmt: skip
    assert found["cards"][1]["key"] == keys[1] and found["cards"][1]["picture"]


def test_clips_beyond_the_text_and_texts_beyond_the_clips(graph, plan):
    more = plan(change(graph, "generate", num_clips=6))
    assert [card["place"]["beyond"] for card in more["cards"]] == [False] * 4 + [True] * 2
    fewer = plan(change(graph, "generate", num_clips=2))
    assert states(fewer) == ["planned", "planned", "dropped", "dropped"]
    assert (fewer["header"]["clips"], fewer["header"]["dropped"]) == (2, 2) and fewer["cards"][3]["prompt"] == "an owl"


def test_takes_are_listed_and_one_can_be_pinned(graph, plan, make, ask, edit):
    first = make(graph)
    again = make(change(graph, "prompts", text=TEXT.replace("seed 7", "seed 8")))
    status, answer = ask("GET", "/svi/takes", params={"run": RUN, "index": "1"})
    assert status == 200 and (answer["run"], answer["index"]) == (RUN, 1)
    assert [take["key"] for take in answer["takes"]] == [first[1], again[1]]
    one, two = answer["takes"]
    assert (one["number"], one["seed"], one["options"], one["parent"], one["shown"]) == (1, 7, "cfg 3.5", first[0], False)
    assert two["shown"] and two["picture"].startswith("/svi/picture?run=svi%2Fboard&file=") and two["size_bytes"] > 1000

    status, pinned = edit(TEXT, do="pin", clip=1, key=first[1], more={"prompt": graph})
    assert status == 200 and f"[seed 7, cfg 3.5, take {first[1][:12]}]" in pinned["text"]
    assert pinned["cost"] == {"clips": [], "count": 0, "seconds": 0, "exact": True}
    found = plan(change(graph, "prompts", text=pinned["text"].replace("a dog", "something else")))
    card = found["cards"][1]
    assert card["state"] == "ready" and card["key"] == first[1]
    assert card["pin"] == {"key": first[1][:12], "found": True, "message": ""} and card["take"]["pinned"]
    assert states(found) == ["ready"] * 4  # the clips after it keep their keys, whatever its prompt says


def test_a_pinned_take_that_is_gone_is_named_and_the_cards_still_come(graph, plan, make, ask):
    make(graph)
    found = plan(change(graph, "prompts", text=TEXT.replace("seed 7,", "take 0123456789ab,")))
    (error,) = found["errors"]
    assert "clip 2 of the schedule: take 0123456789ab is not among the stored clips of" in error["message"]
    assert found["cards"][1]["pin"] == {"key": "0123456789ab", "found": False, "message": error["message"]}


def test_a_take_of_another_parent_says_so(graph, plan, make, edit):
    first = make(graph)
    text = TEXT.replace("a cat", "[seed 50]\na cat")
    make(change(graph, "prompts", text=text))
    pinned = edit(text, do="pin", clip=1, key=first[1])[1]["text"]
    cards = plan(change(graph, "prompts", text=pinned))["cards"]
    assert cards[1]["state"] == "ready" and cards[1]["take"]["follows"] is False and cards[0]["take"]["follows"] is True


def test_mistakes_inside_the_graph_are_part_of_the_answer(graph, plan):
    answer = plan(change(graph, "prompts", text="a\n\n[sede 3]\nb"))
    (error,) = answer["errors"]
    assert (error["line"], error["column"], error["node"]) == (3, 2, "prompts") and "option 'sede 3'" in error["message"]
    assert answer["cards"] == [] and answer["header"] is None and answer["source"]["text"].startswith("a\n")
    broken = plan(change(graph, "generate", boundary="x", seed=[]))
    assert len(broken["errors"]) == 1 or broken["cards"]
    assert "has no SVI Generate" in plan({"1": node("LoadImage", image="a")})["errors"][0]["message"]


def test_the_node_that_holds_the_text_is_named(graph, plan, folders):  # noqa: F811
    source = plan(graph)["source"]
    assert (source["kind"], source["node"], source["widget"], source["editable"]) == ("text", "prompts", "text", True)
    linked = change(graph, "prompts", text=["12:3", 0])
    linked["12:3"] = node("PrimitiveStringMultiline", value=TEXT)
    source = plan(linked)["source"]
    assert (source["node"], source["widget"], source["text"]) == ("12:3", "value", TEXT)
    made = change(graph, "prompts", text=["story", 0])
    made["story"] = node("SomeNode", a=1)
    answer = plan(made)
    assert not answer["source"]["editable"] and "SomeNode (node story)" in answer["source"]["why_not"] and answer["errors"]
    lines = plan(change(graph, "prompts", text="a\nb", split="lines"))["source"]
    assert lines["plain"] and lines["split_widget"] == "split"


def test_several_generate_nodes_are_listed_and_chosen(graph, plan, ask):
    graph["31:4"] = {**json.loads(json.dumps(graph["generate"])), "_meta": {"title": "Second story"}}
    graph["31:4"]["inputs"] |= {"num_clips": 2, "filename_prefix": "svi/second"}
    answer = plan(graph, node="31:4")
    assert answer["nodes"][1] == {"id": "31:4", "title": "Second story"} and answer["header"]["run"] == "svi/second"
    assert plan(graph)["header"]["run"] == RUN
    status, answer = ask("POST", "/svi/plan", json={"prompt": graph, "node": "99"})
    assert status == 400 and "node is '99': send the id of an SVI Generate of this graph (generate, 31:4)" in answer["error"]


def test_an_edit_gives_text_range_and_cost(graph, make, edit):
    make(graph)
    status, answer = edit(TEXT, do="set_option", clip=1, name="cfg", value=4.25, more={"prompt": graph})
    assert status == 200 and answer["text"] == TEXT.replace("3.5", "4.25")
    cost = answer["cost"]
    assert (cost["clips"], cost["count"], cost["exact"]) == ([1], 1, True)
    assert answer["range"] == {"start": 32, "stop": 35, "line": 5, "end_line": 5}
    moved = edit(TEXT, do="move", clip=0, to=1)[1]
    assert moved["clip"] == 1 and moved["cost"] == {"clips": [0, 1], "count": 2, "seconds": None, "exact": False}
    rerolled = edit(TEXT, do="reroll", clip=1)[1]
    assert f"[seed {rerolled['seed']}, cfg 3.5]" in rerolled["text"]
    plain = edit("a\nb", "lines", do="as_paragraphs")[1]
    assert (plain["text"], plain["split"]) == ("a\n\nb\n", "paragraphs")
    taken = edit("[anchor sea]\na\n\nb", do="set_option", clip=0, name="anchor", value=None)[1]
    assert taken["notes"] == ["Clip 2 takes its anchor from before: it is main now."]
    assert edit(TEXT, do="insert", clip=4, prompt="x", options="cut")[1]["text"].endswith("an owl\n\n[cut]\nx\n")
    assert edit(TEXT, do="split", clip=0, at=1)[0] == edit(TEXT, do="duplicate", clip=0)[0] == 200
    assert edit(TEXT, do="delete", clip=1)[1]["text"] == TEXT.replace("[seed 7, cfg 3.5]\na dog\n\n", "")
    assert edit(TEXT, do="unpin", clip=1)[1]["text"] == TEXT


def test_several_actions_cost_what_they_cost_together(graph, make, edit):
    """As cutting to an image does: the anchor makes a clip another one, and the cut after it says the same of no other."""
    make(graph)
    anchor = {"do": "set_option", "clip": 2, "name": "anchor", "value": "sea"}
    cut = {"do": "set_option", "clip": 2, "name": "cut", "value": True}  # which the clip has
    for more in ({}, {"prompt": graph}):
        assert edit(TEXT, more=more, actions=[anchor, cut])[1]["cost"]["clips"] == [2, 3]
        assert edit(TEXT, more=more, actions=[cut])[1]["cost"]["clips"] == []


def test_a_clip_that_num_clips_follows_is_counted(graph, make, edit):
    make(graph)
    new = {"do": "insert", "clip": 4, "prompt": "a storm"}
    assert edit(TEXT, more={"prompt": graph}, actions=[new])[1]["cost"]["clips"] == []  # num_clips stays 4
    assert edit(TEXT, more={"prompt": graph, "num_clips": 5}, actions=[new])[1]["cost"]["clips"] == [4]


@pytest.mark.parametrize("num_clips", [0, -1, 10**12, "5", True])
def test_a_number_of_clips_that_no_widget_holds_is_refused(graph, edit, folders, num_clips):  # noqa: F811
    """Before anything is written, and without a graph too."""
    file = folders / "input" / "schedule.txt"
    file.write_bytes(TEXT.encode())
    for more in ({"prompt": graph, "file": "schedule.txt"}, {"prompt": graph}, {}):
        status, answer = edit(TEXT, more={**more, "num_clips": num_clips}, do="delete", clip=0)
        assert status == 400 and f"num_clips is {str(num_clips)!r}" in answer["error"]
    assert file.read_bytes() == TEXT.encode()


@pytest.mark.parametrize("actions", [None, [], {}, [3]])
def test_no_actions_are_refused(ask, actions):
    status, answer = ask("POST", "/svi/edit", json={"text": "a", "split": "paragraphs", "actions": actions})
    assert status == 400 and f"actions is {str(actions)!r}" in answer["error"]


@pytest.mark.parametrize(("at", "prompts"), [(7, ["🚤 sail", "s by."]), (1, None), (-3, None)])
def test_a_prompt_is_split_where_a_browser_counts(edit, at, prompts):
    status, answer = edit("🚤 sails by.", do="split", clip=0, at=at)
    if prompts is None:  # inside the first character, or before it
        assert status == 400 and "an end of the prompt" in answer["error"]
    else:
        assert (status, answer["text"]) == (200, "\n\n".join(prompts) + "\n")


def test_a_live_schedule_is_edited_in_its_file(graph, plan, edit, folders):  # noqa: F811
    file = folders / "input" / "schedule.txt"
    file.write_text("a\n\nb")
    graph["prompts"] = node("SVILiveSchedule", clip=["clip", 0], file="schedule.txt", until_stopped=False)
    answer = plan(graph)
    assert (answer["source"]["kind"], answer["source"]["file"], len(answer["cards"])) == ("file", "schedule.txt", 4)
    action = {"do": "set_prompt", "clip": 0, "prompt": "x"}
    assert edit("a\n\nb", more={"file": "schedule.txt", "apply": False}, **action)[1]["text"] == "x\n\nb"
    assert file.read_text() == "a\n\nb"
    assert edit("a\n\nb", more={"file": "schedule.txt"}, **action)[0] == 200 and file.read_text() == "x\n\nb"
    status, answer = edit("a\n\nb", more={"file": "schedule.txt"}, **action)
    assert status == 400 and "has changed since it was shown" in answer["error"] and file.read_text() == "x\n\nb"
    assert edit("x\n\nb", more={"file": "schedule.txt"}, do="replace", new_text="a\n\nb")[0] == 200
    assert file.read_text() == "a\n\nb"
    both = [{"do": "set_prompt", "clip": 0, "prompt": "x"}, {"do": "set_prompt", "clip": 1, "prompt": "y"}]
    assert edit("a\n\nb", more={"file": "schedule.txt"}, actions=both)[0] == 200 and file.read_text() == "x\n\ny"
    refused = [{"do": "delete", "clip": 1}, {"do": "sing", "clip": 0}]  # of which the first one alone would be possible
    assert edit("x\n\ny", more={"file": "schedule.txt"}, actions=refused)[0] == 400 and file.read_text() == "x\n\ny"
    status, answer = edit("[sede 3]\na", do="replace", new_text="[seed 3]\na")  # mends a mistake, whose cost nobody knows
    assert (status, answer["text"], answer["cost"]) == (200, "[seed 3]\na", None)
    status, answer = edit("", more={"file": "../user/x.txt"}, do="replace", new_text="b")
    assert status == 400 and "inside ComfyUI's input folder" in answer["error"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_a_live_file_keeps_its_encoding_and_line_ends(edit, folders, encoding):  # noqa: F811
    file = folders / "input" / "schedule.txt"
    file.write_bytes("ä\r\n\r\nb".encode(encoding))
    assert edit("ä\r\n\r\nb", more={"file": "schedule.txt"}, do="replace", new_text="ä\n\nc")[0] == 200
    assert file.read_bytes() == "ä\r\n\r\nc".encode(encoding)


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ({"do": "sing"}, "clip is 'None'"),
        ({"do": "sing", "clip": 0}, "do is 'sing': send set_prompt"),
        ({"do": "delete", "clip": -1}, "clip is -1"),
        ({"do": "set_prompt", "clip": 0}, "prompt is 'None'"),
        ({"do": "set_prompt", "clip": 0, "prompt": " "}, "the prompt is empty"),
        ({"do": "set_option", "clip": 0, "name": "cfg", "value": [1]}, "value is '[1]'"),
        ({"do": "set_option", "clip": 0, "name": "cfg", "value": "1]\n[seed 3"}, "without brackets"),
        ({"do": "set_option", "clip": 0, "name": "cfg", "value": True}, "cfg is ''"),
        ({"do": "pin", "clip": 0, "key": "../../etc"}, "key is '../../etc'"),
        ({"do": "move", "clip": 0, "to": "1"}, "to is '1'"),
        ({"do": "reroll", "clip": 0, "seed": 2**60}, "seed is"),
    ],
)
def test_wrong_actions_are_answered_with_the_reason(edit, action, reason):
    status, answer = edit(TEXT, **action)
    assert status == 400 and reason in answer["error"] and answer["line"] is None, answer


def test_a_mistake_in_the_text_is_answered_with_its_place(edit):
    status, answer = edit("a\n\n[sede 3]\nb", do="delete", clip=0)
    assert status == 400 and (answer["line"], answer["column"]) == (3, 2)
    status, answer = edit("a\nb", "lines", do="set_option", clip=0, name="cut", value=True)
    assert status == 400 and answer["fix"] == "as_paragraphs"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "prompt is 'None'"),
        ({"prompt": []}, "prompt is '[]'"),
        ({"prompt": {"1": 3}}, "node '1' of prompt has no class_type and inputs"),
        ({"prompt": {"1": {"class_type": "SVIGenerate"}}}, "node '1' of prompt has no class_type and inputs"),
    ],
)
def test_what_is_no_graph_is_refused(ask, body, reason):
    status, answer = ask("POST", "/svi/plan", json=body)
    assert status == 400 and reason in answer["error"]


def test_a_picture_and_badges_of_a_clip(graph, plan, make, ask):
    make(graph)
    cards = plan(graph)["cards"]
    status, data = ask("GET", cards[1]["picture"])
    picture = Image.open(io.BytesIO(data))
    assert status == 200 and picture.size == (320, 320) and abs(picture.getpixel((5, 5))[0] - 102) < 6
    status, answer = ask("GET", cards[1]["look"])
    assert status == 200
    colour = next(badge for badge in answer["badges"] if badge["kind"] == "colour")
    assert colour["text"] == "colour 0.16" and colour["severe"]
    assert next(badge for badge in answer["badges"] if badge["kind"] == "seam")["severe"]
    assert plan(graph)["cards"][1]["badges"] == answer["badges"]
    status, answer = ask("GET", cards[2]["look"])  # a cut is no seam
    assert [badge["kind"] for badge in answer["badges"]] == ["colour"]


def test_a_clip_that_is_shorter_than_it_says_is_named(graph, plan, make, ask, module, monkeypatch):  # noqa: F811
    make(graph)
    address = plan(graph)["cards"][1]["picture"]
    monkeypatch.setattr(module("storyboard.pictures"), "read_frames", lambda path: (frame for frame in ()))
    status, answer = ask("GET", address)
    assert status == 500 and "ends before its frame" in answer["error"]


def test_bodies_are_read_off_the_event_loop(ask, module, monkeypatch):  # noqa: F811
    """8 MiB of JSON take seconds, in which a server that reads them in its loop answers nobody."""
    routes, threads = module("bridge.routes"), []

    def noting(data, name):
        threads.append(threading.current_thread())
        return json.loads(data)

    monkeypatch.setattr(routes, "parse_json", noting)
    ask("POST", "/svi/edit", json={})
    assert threads and threads[0] is not threading.current_thread()


def test_no_path_leads_out(ask, graph, make, folders):  # noqa: F811
    (key, *_) = make(graph)
    (folders / "secret.mp4").write_bytes(b"x")
    name = f"{key}-a.mp4"
    for query, status in (
        ({"run": RUN, "file": "../../../secret.mp4"}, 400),
        ({"run": "../", "file": name}, 400),
        ({"run": RUN, "file": name}, 404),
        ({"run": RUN}, 400),
        ({"run": RUN, "file": name, "frame": "9"}, 400),
    ):
        for route in ("/svi/picture", "/svi/look"):
            got, answer = ask("GET", route, params=query)
            assert got == (400 if (route, status) == ("/svi/look", 404) else status) or "frame" in query, answer
            assert "frame" in query or answer["error"]
    for query in ({"run": "../x", "index": "0"}, {"run": RUN}, {"run": RUN, "index": "-1"}, {"run": RUN, "index": "٣"}):
        assert ask("GET", "/svi/takes", params=query)[0] == 400
    assert ask("GET", "/svi/takes", params={"run": "none", "index": "0"})[1]["takes"] == []
    assert not (folders / "output" / "none").exists()


def test_records_of_before_are_read(graph, plan, make, ask, folders):  # noqa: F811
    keys = make(graph)
    path = folders / "output" / RUN / "clips" / f"{keys[1]}.json"
    facts = json.loads(path.read_text())
    names = ("key", "index", "prompt", "seed", "segments", "plan_key", "measures")
    path.write_text(json.dumps({name: facts[name] for name in names}))
    card = plan(graph)["cards"][1]
    assert card["state"] == "ready" and card["take"]["follows"] is None
    (take,) = ask("GET", "/svi/takes", params={"run": RUN, "index": "1"})[1]["takes"]
    assert (take["options"], take["parent"], take["made"]) == (None, None, None)


def test_numbers_are_those_that_comfyui_makes_of_a_browsers(module, monkeypatch):  # noqa: F811
    """JavaScript writes 5.0 as 5, and ComfyUI makes 5.0 of it when it queues the graph: the plan must see what the run saw."""

    class Shift:
        INPUT_TYPES = staticmethod(lambda: {"required": {"shift": ("FLOAT", {}), "steps": ("INT", {})}})

    monkeypatch.setitem(sys.modules, "nodes", SimpleNamespace(NODE_CLASS_MAPPINGS={"Shift": Shift}))
    sent = {"1": node("Shift", shift=5, steps=5, other=5), "2": node("Unknown", shift=5)}
    read, _ = module("storyboard.asked_run").asked_graph({"prompt": sent})
    found = {name: (value, type(value)) for name, value in read.inputs("1").items()}
    assert found == {"shift": (5.0, float), "steps": (5, int), "other": (5, int)}
    assert type(read.inputs("2")["shift"]) is int and sent["1"]["inputs"]["shift"] == 5
