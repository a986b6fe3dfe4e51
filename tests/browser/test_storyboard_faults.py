"""The storyboard when another story is shown before an edit is done, and when the server's answers fail."""

import pytest

from tests.browser.storyboard import GO_ON, HELD, HOLD, PROMPTS, SECOND_STORY, STORY, TEXT, open_storyboard
from tests.browser.test_storyboard_graphs import LIVE_SCHEDULE

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

ONCE = pytest.mark.parametrize("renderer", ["classic nodes"], indirect=True)
LOAD = "workflow => app.loadGraphData(workflow)"
SAVED = "() => app.graph.serialize()"
RING = """() => {  // two named anchors, each with the other's anchors
    const slot = node => node.inputs.findIndex(input => input.name === 'anchors');
    const [one, two] = [1, 2].map(() => LiteGraph.createNode('SVINamedAnchor'));
    [one, two].forEach(node => app.graph.add(node));
    one.connect(0, two, slot(two));
    two.connect(0, one, slot(one));
    const loop = app.graph._nodes.find(node => node.type === 'SVIGenerate');
    one.connect(0, loop, slot(loop));
}"""
TEXTS = "app.graph._nodes.filter(node => node.type === 'SVIPromptStream').map(node => node.widgets[0].value)"


@ONCE
def test_an_image_for_one_story_does_not_get_into_another(storyboard, front_end, renderer):
    page = storyboard.page
    storyboard.add_second_story()
    page.evaluate(HOLD, "/upload/image")
    storyboard.drop_file(2, "late.png", 0.15)
    page.wait_for_function(HELD)
    storyboard.choose_second_story()
    page.evaluate(GO_ON)
    storyboard.message.get_by_text("changed meanwhile").wait_for()
    assert page.evaluate(TEXTS) == [STORY, SECOND_STORY]
    assert "SVINamedAnchor" not in front_end.node_types() and front_end.errors == []


@ONCE
def test_an_image_for_the_second_story_is_its_own(storyboard, front_end, renderer):
    storyboard.add_second_story()
    storyboard.choose_second_story()
    storyboard.drop_file(2, "own.png", 0.15)
    storyboard.card(2).get_by_text("⚓ own").wait_for()
    assert storyboard.page.evaluate(TEXTS) == [STORY, SECOND_STORY.replace("its end.", "[anchor own]\nits end.")]
    loops = [facts["inputs"] for facts in front_end.api_graph().values() if facts["class_type"] == "SVIGenerate"]
    assert ["anchors" in inputs for inputs in loops] == [False, True] and front_end.errors == []


@ONCE
def test_an_image_finds_the_end_of_anchors_that_are_wired_in_a_ring(storyboard, front_end, renderer):
    """The front end lets nodes be wired so, and a page that follows the wires round and round answers nothing any more."""
    storyboard.page.evaluate(RING)
    storyboard.note_change()
    storyboard.drop_file(2, "late.png", 0.15)
    storyboard.card(2).get_by_text("⚓ late").wait_for()
    assert front_end.node_types().count("SVINamedAnchor") == 3 and front_end.errors == []


@ONCE
def test_an_edit_does_not_get_into_another_tab_with_the_same_text(storyboard, front_end, renderer):
    page = storyboard.page
    page.evaluate(HOLD, "/svi/edit")
    storyboard.choose(1)
    page.keyboard.press("Control+d")
    page.wait_for_function(HELD)
    page.evaluate(LOAD, page.evaluate(SAVED))
    page.evaluate(GO_ON)
    storyboard.message.get_by_text("changed meanwhile").wait_for()
    assert storyboard.text() == STORY and storyboard.queued("SVIGenerate")["num_clips"] == 3 and front_end.errors == []


@ONCE
def test_an_edit_of_a_live_file_changes_no_other_graph(storyboard, front_end, comfy_server, renderer):
    page, other = storyboard.page, storyboard.page.evaluate(SAVED)
    file = comfy_server.base_directory / "input" / "left story.txt"
    file.write_text("a boat sails.\n\nnight falls.")
    page.evaluate(LIVE_SCHEDULE, file.name)
    front_end.set_widgets("SVIGenerate", {"num_clips": 2})
    storyboard.note_change()
    storyboard.wait_for_cards(["a boat sails.", "night falls."])
    page.evaluate(HOLD, "/svi/edit")
    storyboard.choose(1)
    page.keyboard.press("Control+d")
    page.wait_for_function(HELD)
    page.evaluate(LOAD, other)
    storyboard.wait_for_cards(PROMPTS)
    page.evaluate(GO_ON)
    storyboard.message.get_by_text("left story.txt was edited. The page shows another story now").wait_for()
    assert file.read_text() == "a boat sails.\n\na boat sails.\n\nnight falls."
    assert storyboard.text() == STORY and storyboard.queued("SVIGenerate")["num_clips"] == 3 and front_end.errors == []


@ONCE
def test_the_text_is_shown_as_it_stands_before_its_plan_is_there(storyboard, front_end, renderer):
    page, twice = storyboard.page, STORY.replace(PROMPTS[0], f"{PROMPTS[0]}\n\n{PROMPTS[0]}", 1)
    page.evaluate(HOLD, "/svi/plan")
    storyboard.choose(1)
    storyboard.press("Control+d", twice)
    page.wait_for_function(HELD)
    page.get_by_role("button", name="Text ⇄").click()
    field = page.locator(".svi-board-text")
    assert field.input_value() == twice
    field.fill(twice.replace("day breaks", "night falls"))
    page.keyboard.press("Control+Enter")
    storyboard.wait_for_text(twice.replace("day breaks", "night falls"))
    page.evaluate(GO_ON)
    page.get_by_role("button", name="Cards ⇄").click()
    storyboard.wait_for_cards([PROMPTS[0], *PROMPTS[:2], PROMPTS[2].replace("day breaks", "night falls")])
    assert front_end.errors == []


@ONCE
def test_edits_do_not_wait_for_a_plan_that_cannot_be_shown(storyboard, front_end, renderer):
    page = storyboard.page
    page.route("**/svi/plan", lambda route: route.fulfill(json={"node": "1", "header": {}, "cards": None}))
    page.evaluate(
        """text => {
            WIDGET = text;
            const key = {key: 'd', ctrlKey: true, bubbles: true};
            document.querySelector('.svi-card').dispatchEvent(new KeyboardEvent('keydown', key));
        }""".replace("WIDGET", TEXT),
        "typed into the node.",
    )
    storyboard.message.get_by_text("changed meanwhile").wait_for()
    storyboard.notice.get_by_text("null").wait_for()
    assert storyboard.text() == "typed into the node." and "is-stale" in storyboard.board.get_attribute("class")
    page.unroute("**/svi/plan")
    after = STORY + "\n\nthe end."
    storyboard.write(after)
    page.wait_for_function("!document.querySelector('.svi-board').classList.contains('is-stale')")
    storyboard.choose(1)
    storyboard.press("Control+d", f"{PROMPTS[0]}\n\n{after}")
    assert front_end.errors == []


@ONCE
def test_the_page_has_words_without_the_texts_of_all_packs(front_end, renderer):
    """An answer that never comes cannot be tried: ComfyUI's own page waits for it without end."""
    page = front_end.page
    page.route("**/api/i18n", lambda route: route.fulfill(status=500))
    try:
        front_end.load()
        storyboard = open_storyboard(front_end)
        page.get_by_role("button", name="Make 3 clips").wait_for()
        storyboard.card(1).get_by_text("planned").wait_for()
    finally:
        page.unroute("**/api/i18n")
        front_end.load()
