"""The storyboard over graphs of every form: subgraphs, reroutes, two stories, mistakes, and nothing at all."""

import json
import time

import pytest

from tests.browser.storyboard import GO_ON, HELD, HOLD, PROMPTS, RUN_MS, STORY, STREAM, TEXT, open_storyboard
from tests.e2e import shipped

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

ONCE = pytest.mark.parametrize("renderer", ["classic nodes"], indirect=True)
INTO_SUBGRAPH = """([promoted, text]) => {
    const chosen = app.graph._nodes.filter(node => ['SVIPromptStream', 'SVIGenerate'].includes(node.type));
    const {subgraph} = app.graph.convertToSubgraph(new Set(chosen));
    const stream = subgraph._nodes.find(node => node.type === 'SVIPromptStream');
    stream.widgets.find(widget => widget.name === 'text').value = text;
    if (!promoted) return;
    const input = subgraph.addInput('text', 'STRING');
    input.connect(stream.inputs.find(slot => slot.name === 'text'), stream);
}"""
SELECTED = """text => { const box = document.querySelector('.svi-board-text');
    return box?.value.slice(box.selectionStart, box.selectionEnd) === text }"""
VALUE = "text => document.querySelector('.svi-board-text')?.value === text"
ABOVE_PANEL = (
    """foot => foot.getBoundingClientRect().bottom <= document.querySelector('.svi-board').getBoundingClientRect().top"""
)
LIVE_SCHEDULE = """file => {  // SVI Live Schedule in the place of SVI Prompt Stream
    const find = type => app.graph._nodes.find(node => node.type === type);
    const slot = (node, name) => node.inputs.findIndex(input => input.name === name);
    const [stream, loop, live] = [find('SVIPromptStream'), find('SVIGenerate'), LiteGraph.createNode('SVILiveSchedule')];
    app.graph.add(live);
    live.widgets.find(widget => widget.name === 'file').value = file;
    const clip = app.graph.getLink(stream.inputs[slot(stream, 'clip')].link);
    app.graph.getNodeById(clip.origin_id).connect(clip.origin_slot, live, slot(live, 'clip'));
    live.connect(0, loop, slot(loop, 'prompts'));
    app.graph.remove(stream);
}"""


@ONCE
def test_a_live_schedule_is_edited_in_its_file(storyboard, front_end, comfy_server, renderer, tmp_path):
    """A file that Windows wrote: its lines end with CR LF. Its edits have an Undo of their own, since the graph holds none."""
    page = storyboard.page
    file = comfy_server.base_directory / "input" / "live story.txt"
    text = "a boat sails.\r\n\r\n[seed 7]\r\nnight falls.\r\n"
    file.write_bytes(text.encode())

    def wait_for_file(expected: str) -> None:
        deadline = time.monotonic() + RUN_MS / 1000
        while file.read_bytes() != expected.encode():
            assert time.monotonic() < deadline, file.read_bytes()
            page.wait_for_timeout(50)

    page.evaluate(LIVE_SCHEDULE, file.name)
    front_end.set_widgets("SVIGenerate", {"num_clips": 2})
    storyboard.note_change()
    storyboard.wait_for_cards(["a boat sails.", "night falls."])
    with page.expect_response(lambda reply: reply.url.endswith("/svi/plan") and "a boat lies still." in reply.text()):
        storyboard.card(1).locator("textarea").fill("a boat lies still.")
        page.keyboard.press("Enter")
        wait_for_file(text.replace("a boat sails.", "a boat lies still."))
    page.evaluate(HOLD, "/svi/edit")
    storyboard.message.get_by_role("button", name="Undo").click()
    wait_for_file(text)
    page.wait_for_function(HELD)  # and the page does not know of the file that was written
    storyboard.card(2).locator(".svi-card-more").click()
    page.get_by_role("menuitem", name="Show in the text").click()
    page.evaluate(GO_ON)
    field = page.locator(".svi-board-text")
    page.wait_for_function(VALUE, arg=text.replace("\r\n", "\n"))  # not the text and the places of before
    page.wait_for_function(SELECTED, arg="[seed 7]\nnight falls.")
    storyboard.board.get_by_text("live file live story.txt: changes reach the running video").wait_for()
    page.screenshot(path=tmp_path / "live.png")
    field.fill("a boat sails.\n\n[seed 7]\nday breaks.\n")
    page.keyboard.press("Control+Enter")
    wait_for_file(text.replace("night falls.", "day breaks."))
    page.get_by_role("button", name="Cards").click()
    storyboard.wait_for_cards(["a boat sails.", "day breaks."])
    file.write_text("changed by another program.")
    storyboard.card(1).locator("textarea").fill("never written.")
    page.keyboard.press("Enter")
    storyboard.message.get_by_text("has changed since it was shown").wait_for()
    assert file.read_text() == "changed by another program." and front_end.errors == []


@pytest.mark.parametrize("promoted", [False, True], ids=["inside", "promoted text"])
@ONCE
def test_stream_and_loop_may_lie_inside_a_subgraph(storyboard, front_end, renderer, promoted):
    page, inside = storyboard.page, STORY.replace(PROMPTS[0], "inside.")
    page.evaluate(INTO_SUBGRAPH, [promoted, inside])
    storyboard.note_change()
    storyboard.wait_for_cards(["inside.", *PROMPTS[1:]])  # of the node inside, which is another story than that of before
    storyboard.card(1).locator("textarea").fill("edited inside.")
    page.keyboard.press("Enter")
    storyboard.wait_for_queued_text(STORY.replace(PROMPTS[0], "edited inside."))
    storyboard.drop_file(2, "inside.png", 0.15)
    storyboard.card(2).get_by_text("⚓ inside").wait_for()
    graph = front_end.api_graph()
    (loop,) = shipped.nodes_of(graph, "SVIGenerate")
    progress = {"node": loop, "state": "running", "text": "Clip 1 of 3: sampling, step 1 of 2"}
    page.evaluate("detail => app.api.dispatchEvent(new CustomEvent('svi.progress', {detail}))", progress)
    foot = page.locator(".svi-foot")
    foot.get_by_text("Clip 1 of 3").wait_for()
    assert storyboard.covered_by(foot) == [] and foot.evaluate(ABOVE_PANEL)
    page.evaluate(
        "detail => app.api.dispatchEvent(new CustomEvent('svi.progress', {detail}))", {**progress, "node": "0", "state": "done"}
    )
    named = graph[storyboard.queued("SVIGenerate")["anchors"][0]]
    assert graph[named["inputs"]["anchor"][0]]["inputs"]["vae"] == storyboard.queued("SVIGenerate")["vae"]
    assert front_end.errors == []


@ONCE
def test_a_reroute_and_two_stories(storyboard, front_end, renderer):
    page = storyboard.page
    storyboard.add_second_story()
    storyboard.card(1).locator("textarea").fill("through a reroute.")
    page.keyboard.press("Enter")
    storyboard.wait_for_text(STORY.replace(PROMPTS[0], "through a reroute."))
    storyboard.choose_second_story()
    storyboard.card(2).locator("textarea").fill("its new end.")
    page.keyboard.press("Enter")
    storyboard.wait_for_queued_text("another story.\n\nits new end.")
    assert storyboard.text() == STORY.replace(PROMPTS[0], "through a reroute.") and front_end.errors == []


@ONCE
def test_what_was_typed_for_one_graph_is_not_shown_in_the_next(storyboard, front_end, renderer):
    storyboard.card(1).locator("textarea").fill("never entered.")
    open_storyboard(front_end)  # which waits for the prompts of its own text
    assert storyboard.text() == STORY and front_end.errors == []


@ONCE
def test_a_mistake_is_shown_and_leads_to_its_place(storyboard, front_end, renderer, tmp_path):
    page = storyboard.page
    storyboard.write(STORY.replace("[seed 7]", "[sede 7]"))
    storyboard.notice.get_by_text("'sede 7'").wait_for()
    assert storyboard.prompts() == PROMPTS and "is-stale" in storyboard.board.get_attribute("class")
    page.screenshot(path=tmp_path / "mistake.png")
    storyboard.notice.get_by_role("button", name="Show in the prompt").click()
    field = page.locator(".svi-board-text")
    chosen = field.evaluate("box => box.value.slice(box.selectionStart, box.selectionEnd)")
    assert chosen.startswith("sede 7")
    field.fill(STORY)
    page.keyboard.press("Control+Enter")
    storyboard.wait_for_text(STORY)
    page.get_by_role("button", name="Cards").click()
    page.wait_for_function("!document.querySelector('.svi-board').classList.contains('is-stale')")
    assert storyboard.notice.is_hidden() and storyboard.prompts() == PROMPTS and front_end.errors == []


@ONCE
def test_a_card_that_fails_shows_its_failure_and_the_others_go_on(storyboard, front_end, renderer, tmp_path):
    page = storyboard.page

    def break_second(route) -> None:
        reply = route.fetch()
        plan = reply.json()
        del plan["cards"][1]["effective"]
        route.fulfill(response=reply, body=json.dumps(plan))

    page.route("**/svi/plan", break_second)
    storyboard.write(STORY + "\n\nthe end.")
    front_end.set_widgets("SVIGenerate", {"num_clips": 4})
    storyboard.card(2).get_by_text("This card cannot be shown").wait_for()
    storyboard.card(4).wait_for()
    page.screenshot(path=tmp_path / "broken.png")
    storyboard.card(1).locator("textarea").fill("edited beside it.")
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => ({TEXT}).startsWith('edited beside it.')")
    page.unroute("**/svi/plan")
    storyboard.write(STORY)
    storyboard.card(2).locator(".svi-card-failure").wait_for(state="detached")
    assert front_end.errors == []


@ONCE
def test_the_sidebar_shows_the_same_in_narrow(storyboard, front_end, renderer, tmp_path):
    page = storyboard.page
    page.keyboard.press("Alt+s")
    storyboard.board.wait_for(state="detached")
    front_end.command("Workspace.ToggleSidebarTab.svi-storyboard")
    page.locator(".svi-board.is-narrow").wait_for()
    storyboard.wait_for_cards(PROMPTS)
    page.screenshot(path=tmp_path / "narrow.png")
    storyboard.choose(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.closest('.svi-board-item')?.ariaPosInSet === '2'")
    page.keyboard.press("End")
    page.keyboard.type(" in fog.")
    page.keyboard.press("Enter")
    storyboard.wait_for_text(STORY.replace("at night.", "at night. in fog."))
    storyboard.message.get_by_text("to be made").wait_for()
    assert storyboard.covered_by(storyboard.message) == []
    page.screenshot(path=tmp_path / "said.png")
    front_end.command("Workspace.ToggleSidebarTab.svi-storyboard")
    storyboard.board.wait_for(state="detached")
    assert front_end.errors == []


@ONCE
def test_cards_speak_the_language_of_the_page(storyboard, front_end, renderer):
    set_language = "language => app.extensionManager.setting.set('Comfy.Locale', language)"
    before = storyboard.page.evaluate("app.extensionManager.setting.get('Comfy.Locale')")
    storyboard.page.evaluate(set_language, "zh")
    try:
        storyboard.write(STORY + "\n\nthe end.")
        storyboard.card(1).get_by_text("待生成").wait_for()
    finally:
        storyboard.page.evaluate(set_language, before)
    storyboard.write(STORY)
    storyboard.card(1).get_by_text("planned").wait_for()
    assert front_end.errors == []


@ONCE
def test_an_empty_graph_and_a_fixed_text_say_what_to_do(storyboard, front_end, renderer):
    page = storyboard.page
    page.evaluate(
        """() => {
            const [stream, maker] = [STREAM, LiteGraph.createNode('StringConcatenate')];
            app.graph.add(maker);
            maker.connect(0, stream, stream.inputs.findIndex(slot => slot.name === 'text'));
        }""".replace("STREAM", STREAM)
    )
    storyboard.note_change()
    storyboard.notice.or_(page.locator(".svi-board.is-stale")).first.wait_for()
    page.wait_for_function("document.querySelector('.svi-card-prompt')?.readOnly !== false")
    front_end.new_graph()
    storyboard.board.get_by_text("No story here yet").wait_for()
    assert front_end.errors == []


def test_buttons_on_nodes_open_it_and_nothing_is_saved(storyboard, front_end, renderer):
    page = storyboard.page
    page.keyboard.press("Alt+s")
    storyboard.board.wait_for(state="detached")
    press = f"() => {STREAM}.widgets.find(widget => widget.type === 'button').callback()"
    page.evaluate(press)
    storyboard.wait_for_cards(PROMPTS)
    page.evaluate(press)
    assert storyboard.board.is_visible(), "the button opens, and never closes"
    storyboard.card(1).locator("textarea").fill("edited.")
    page.keyboard.press("Enter")
    storyboard.wait_for_text(STORY.replace(PROMPTS[0], "edited."))
    storyboard.undo(STORY)
    saved = page.evaluate(f"() => {STREAM}.serialize().widgets_values")
    shipped_values = next(node for node in shipped.read(shipped.DEMO)["nodes"] if node["type"] == "SVIPromptStream")[
        "widgets_values"
    ]
    assert len(saved) == len(shipped_values) and not any("oard" in name for name in storyboard.queued("SVIPromptStream"))
    assert front_end.errors == []
