"""The storyboard while clips are made, and with the clips that are there."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from comfyui.server import ComfyServer
from svi_core.video.video_file import VideoCoding, write_video
from tests.browser.front_end import READY, FrontEnd
from tests.browser.storyboard import PROMPTS, RUN_MS, STORY, TEXT, Storyboard

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

ONCE = pytest.mark.parametrize("renderer", ["classic nodes"], indirect=True)
UNTIL_DONE = """() => {
    window.sviDone = false;
    app.api.addEventListener('execution_success', () => { window.sviDone = true }, {once: true});
}"""
WATCH = """() => {
    window.sviStates = [];
    const note = () => document.querySelectorAll('.svi-card').forEach(card => window.sviStates.push(card.dataset.state));
    window.sviWatch ??= setInterval(note, 20);
}"""
NOTE_PLAYED = """() => {
    window.sviPlayed = [];
    const note = event => window.sviPlayed.push(new URL(event.target.src).searchParams.get('filename'));
    document.addEventListener('playing', note, {capture: true});
}"""


def make(storyboard: Storyboard, press) -> None:
    """Do what queues the graph, and wait for the end of the run."""
    storyboard.page.evaluate(UNTIL_DONE)
    press()
    storyboard.page.wait_for_function("window.sviDone", timeout=RUN_MS)


@pytest.mark.slow
@ONCE
def test_clips_are_made_rerolled_compared_and_locked(
    storyboard, front_end, comfy_server: ComfyServer, renderer, tmp_path: Path
):
    page = storyboard.page
    front_end.set_widgets("SVIGenerate", {"filename_prefix": "browser/storyboard run"})
    storyboard.note_change()
    storyboard.wait_for_states("planned", "planned", "planned")
    page.evaluate(WATCH)
    make(storyboard, lambda: page.get_by_role("button", name="Make 3 clips").click())
    assert "making" in page.evaluate("window.sviStates"), "no card was shown while it was made"
    storyboard.wait_for_states("ready", "ready", "ready")
    storyboard.board.get_by_text("3 ready").wait_for()
    # the last plan, with the last picture, comes after the end of the run
    expect(page.locator(".svi-card-empty:visible")).to_have_count(0, timeout=RUN_MS)
    page.screenshot(path=tmp_path / "ready.png")
    assert_plays_on_hover(storyboard)

    storyboard.choose(2)
    make(storyboard, lambda: page.keyboard.press("r"))
    storyboard.wait_for_states("ready", "ready", "ready")
    storyboard.card(2).get_by_text("take 2/2").wait_for()
    assert "[seed 7]" not in storyboard.text()

    storyboard.choose(2)
    page.keyboard.press("t")
    page.get_by_role("button", name="Compare side by side").click()
    page.wait_for_function(
        "[...document.querySelectorAll('.svi-compare video')].filter(video => video.readyState >= 2).length === 2"
    )
    page.screenshot(path=tmp_path / "compared.png")
    page.keyboard.press("Escape")
    storyboard.card(2).locator(".svi-card-take").click()  # by mouse, over the clip that plays
    page.locator(".svi-take").first.get_by_role("button", name="Use").click()
    page.wait_for_function(f"() => /take [0-9a-f]{{12}}/.test({TEXT})")
    page.wait_for_function(
        "document.querySelector(\".svi-board-item[aria-posinset='2'] .svi-card-lock\").ariaPressed === 'true'"
    )
    storyboard.choose(2)
    page.keyboard.press("l")
    page.wait_for_function(f"() => !/take [0-9a-f]{{12}}/.test({TEXT})")
    assert_reload_shows_the_same(storyboard)
    assert_made_again_from_here(storyboard)
    assert front_end.errors == []


def assert_made_again_from_here(storyboard: Storyboard) -> None:
    """With clip 1 outdated, "from here" on clip 2 pins the take of clip 1 and gives clip 2, which only followed it, a seed."""
    storyboard.write(storyboard.text().replace(storyboard.prompts()[0], "another prompt", 1))
    storyboard.wait_for_states("outdated", "outdated", "ready")  # clip 3 is a cut
    make(storyboard, lambda: storyboard.card(2).get_by_role("button", name="from here").click())
    storyboard.wait_for_states("ready", "ready", "ready")
    first, second = storyboard.text().split("\n\n")[:2]
    assert "[take " in first and "[seed " in second, storyboard.text()
    storyboard.card(2).get_by_text("take 3/3").wait_for()


def assert_plays_on_hover(storyboard: Storyboard) -> None:
    """One video plays in the card under the pointer, and none is left when the pointer leaves."""
    page = storyboard.page
    for number in (1, 2):
        storyboard.card(number).locator(".svi-card-picture").hover()
        page.wait_for_function("(v => v?.readyState >= 2 && !v.paused)(document.querySelector('.svi-card-picture video'))")
        assert page.locator(".svi-board video").count() == 1
    storyboard.board.locator(".svi-board-run").hover()
    page.locator(".svi-board video").wait_for(state="detached")


def assert_reload_shows_the_same(storyboard: Storyboard) -> None:
    workflow = storyboard.page.evaluate("() => app.graph.serialize()")
    storyboard.page.reload()
    storyboard.page.wait_for_function(READY)
    storyboard.front_end.new_graph()
    storyboard.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    storyboard.open()
    storyboard.wait_for_states("ready", "ready", "ready")


@ONCE
def test_the_clip_that_a_run_has_come_to_is_shown_with_its_steps(storyboard, front_end, renderer):
    """By the events of a run of 3 clips with 10 steps each; a clip counts its frames as one step more."""
    page = storyboard.page
    graph = front_end.api_graph()
    loop = next(node for node, facts in graph.items() if facts["class_type"] == "SVIGenerate")
    running = {"queue_running": [[0, "fake", graph, {}, []]], "queue_pending": []}
    page.route("**/api/queue", lambda route: route.fulfill(json=running))
    tell = "([name, detail]) => app.api.dispatchEvent(new CustomEvent(name, {detail}))"

    def step(value: float) -> None:
        nodes = {loop: {"node_id": loop, "display_node_id": loop, "state": "running", "value": value, "max": 33}}
        page.evaluate(tell, ["progress_state", {"prompt_id": "fake", "nodes": nodes}])

    page.evaluate(tell, ["execution_start", {"prompt_id": "fake", "timestamp": 0}])
    storyboard.wait_for_states("making", "planned", "planned")
    step(4)
    storyboard.card(1).get_by_text("step 4/10").wait_for()
    step(15)  # clip 1 is not ready by the text as it stands now, but this run has passed it
    storyboard.card(2).get_by_text("step 4/10").wait_for()
    storyboard.wait_for_states("planned", "making", "planned")
    step(21.4)
    storyboard.card(2).locator(".svi-card-state").get_by_text("decoding").wait_for()
    assert "step" not in storyboard.card(2).locator(".svi-card-state").inner_text()
    running["queue_running"] = []
    page.evaluate(tell, ["execution_interrupted", {"prompt_id": "fake", "node_id": loop, "executed": []}])
    storyboard.wait_for_states("planned", "planned", "planned")
    page.unroute("**/api/queue")
    assert front_end.errors == []


@ONCE
def test_a_run_waits_for_what_was_just_typed(storyboard, front_end, renderer):
    """A click on Make leaves the field, which begins the edit; the server answers it after the click."""
    page = storyboard.page
    queued = []

    def answer_late(route) -> None:
        page.wait_for_timeout(300)
        route.continue_()

    def note(route) -> None:
        queued.append(route.request.post_data_json["prompt"])
        route.fulfill(json={"prompt_id": "none", "number": 1, "node_errors": {}})

    page.route("**/svi/edit", answer_late)
    page.route("**/api/prompt", note)
    storyboard.card(2).locator("textarea").fill("typed just now.")
    with page.expect_request("**/api/prompt"):
        page.get_by_role("button", name="Make 3 clips").click()
    page.wait_for_timeout(0)
    page.unroute("**/svi/edit")
    page.unroute("**/api/prompt")
    (graph,) = queued
    (stream,) = (node for node in graph.values() if node["class_type"] == "SVIPromptStream")
    assert stream["inputs"]["text"] == STORY.replace(PROMPTS[1], "typed just now.") and front_end.errors == []


@ONCE
def test_a_run_is_not_shown_in_another_workflow_with_the_same_node_ids(storyboard, front_end, renderer):
    page = storyboard.page
    graph = front_end.api_graph()
    page.route(
        "**/api/queue", lambda route: route.fulfill(json={"queue_running": [[0, "fake", graph, {}, []]], "queue_pending": []})
    )
    page.evaluate("app.api.dispatchEvent(new CustomEvent('execution_start', {detail: {prompt_id: 'fake', timestamp: 0}}))")
    storyboard.wait_for_states("making", "planned", "planned")
    workflow = page.evaluate("() => app.graph.serialize()")
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    front_end.set_widgets("SVIGenerate", {"filename_prefix": "browser/storyboard other"})
    storyboard.note_change()
    page.get_by_role("button", name="Make 3 clips").wait_for()  # and not "Stop", which would stop the other run
    storyboard.wait_for_states("planned", "planned", "planned")
    page.unroute("**/api/queue")
    assert front_end.errors == []


@ONCE
def test_all_clips_play_one_after_the_other(storyboard, front_end, comfy_server: ComfyServer, renderer, tmp_path: Path):
    """Clips 1 and 3 have short files, the file of clip 2 is gone: it is passed over."""
    page = storyboard.page
    folder = comfy_server.output_directory / "browser" / "play all"
    folder.mkdir(parents=True)
    for number in (0, 2):
        frames = [np.full((4, 64, 96, 3), 60 + 60 * number, np.uint8)]
        write_video(folder / f"{number}.mp4", frames, VideoCoding(frame_rate=Fraction(8)))

    def with_files(route) -> None:
        reply = route.fetch()
        plan = reply.json()
        for number, card in enumerate(plan["cards"]):
            card["preview"] = {"filename": f"{number}.mp4", "subfolder": "browser/play all", "type": "output"}
        route.fulfill(response=reply, body=json.dumps(plan))

    page.route("**/svi/plan", with_files)
    storyboard.write(STORY + "\n")
    play = page.get_by_role("button", name="Play all")
    page.wait_for_function("button => !button.disabled", arg=play.element_handle())
    page.evaluate(NOTE_PLAYED)
    play.click()
    page.wait_for_function("window.sviPlayed.includes('2.mp4')")
    assert page.evaluate("window.sviPlayed") == ["0.mp4", "2.mp4"]
    page.get_by_text(f"Clip 3 · {PROMPTS[2]}").wait_for()
    page.screenshot(path=tmp_path / "playing.png")
    page.get_by_role("dialog", name="SVI Storyboard").get_by_role("button", name="Close").click()
    page.locator(".svi-compare").wait_for(state="detached")
    page.unroute("**/svi/plan")
    assert front_end.errors == []


@pytest.mark.slow
@ONCE
def test_another_tab_follows_the_run_and_can_stop_it(
    storyboard, front_end, comfy_server: ComfyServer, renderer, chromium, tmp_path: Path
):
    """The second page never queued anything: it knows of the run from the server alone."""
    page = storyboard.page
    front_end.set_widgets("SVIGenerate", {"filename_prefix": "browser/storyboard tabs"})
    front_end.set_widgets("BasicScheduler", {"steps": 12})
    workflow = page.evaluate("() => app.graph.serialize()")
    other = FrontEnd(chromium, comfy_server.url)
    try:
        other.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
        board = Storyboard(other)
        board.open()
        board.wait_for_states("planned", "planned", "planned")
        page.get_by_role("button", name="Make 3 clips").click()
        other.page.locator(".svi-card[data-state='making']").wait_for(timeout=RUN_MS)
        board.wait_for_states("ready", "making", "planned")
        board.card(2).get_by_role("button", name="Stop after this").click()
        board.wait_for_states("ready", "ready", "planned")
        other.page.get_by_role("button", name="Make 1 clip").wait_for()
        other.page.screenshot(path=tmp_path / "stopped.png")
        assert other.errors == []
    finally:
        other.close()
