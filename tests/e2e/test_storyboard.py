"""The storyboard's routes on a real ComfyUI: three clips, another take of the second, and the old take pinned."""

import json
import urllib.request
from urllib.parse import urlencode

import pytest

from svi_core.store.records import read_last_video, read_manifest
from tests.e2e.graphs import loop_graph

pytestmark = pytest.mark.e2e

TEXT = "# a story\n\na cat walking on the grass\n\n[cfg 2.5]\na woman turns her head\n\nthe camera pans left over a city\n"
RUN = "svi/board"


def ask(server, path, body=None):
    """Return the answer of a route; a body makes it a POST."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read()) if answer.headers.get_content_type() == "application/json" else answer.read()


def test_an_old_take_is_found_pinned_and_shown(comfy_server, reference_image):
    graph = loop_graph(comfy_server.add_input(reference_image), prompts=[TEXT], filename_prefix=RUN, num_frames=9)

    def plan():
        return ask(comfy_server, "/svi/plan", {"prompt": graph})

    def edit(**action):
        answer = ask(comfy_server, "/svi/edit", {"text": text(), "split": "paragraphs", "actions": [action], "prompt": graph})
        graph["prompts"]["inputs"]["text"] = answer["text"]
        return answer

    def text():
        return graph["prompts"]["inputs"]["text"]

    def run():
        comfy_server.run(graph)
        return [card["key"] for card in plan()["cards"]]

    assert [card["state"] for card in plan()["cards"]] == ["planned"] * 3
    first = run()
    board = plan()
    assert [card["state"] for card in board["cards"]] == ["ready"] * 3 and board["header"]["to_make"] == 0
    assert board["header"]["frames"] == 17 and board["header"]["video"]["subfolder"] == RUN

    rerolled = edit(do="reroll", clip=1)
    assert text() == TEXT.replace("[cfg 2.5]", f"[cfg 2.5, seed {rerolled['seed']}]")
    assert rerolled["cost"]["clips"] == [1, 2] and rerolled["cost"]["exact"] and rerolled["cost"]["seconds"] > 0
    assert [(card["state"], card["reason"]) for card in plan()["cards"]] == [
        ("ready", ""),
        ("outdated", "the seed changed"),
        ("outdated", "clip 2 changed"),
    ]
    second = run()
    assert second[0] == first[0] and second[1] != first[1] and second[2] != first[2]

    takes = ask(comfy_server, f"/svi/takes?{urlencode({'run': RUN, 'index': 1})}")["takes"]
    assert [take["key"] for take in takes] == [first[1], second[1]]
    assert [take["shown"] for take in takes] == [False, True] and {take["parent"] for take in takes} == {first[0]}
    assert ask(comfy_server, takes[0]["picture"])[:2] == b"\xff\xd8"  # a JPEG
    card = plan()["cards"][1]
    assert (card["take"]["number"], card["take"]["count"]) == (2, 2)

    pinned = edit(do="pin", clip=1, key=takes[0]["key"])
    assert f"take {first[1][:12]}]" in text() and pinned["cost"]["clips"] == []
    edit(do="set_prompt", clip=1, prompt="whatever this says")
    videos = comfy_server.output_directory / RUN
    stored = set((videos / "clips").glob("*.safetensors"))
    assert run() == first
    assert set((videos / "clips").glob("*.safetensors")) == stored, "nothing is sampled"
    shown = read_manifest(read_last_video(videos))
    assert [clip.key for clip in shown] == first and shown[1].prompt == "a woman turns her head"
    assert isinstance(ask(comfy_server, plan()["cards"][1]["look"])["badges"], list)
