"""The storyboard when another story is shown before an edit is done, and when the server's answers fail."""

import pytest

from tests.browser.storyboard import PROMPTS, STORY, TEXT, open_storyboard
from tests.browser.test_storyboard_graphs import LIVE_SCHEDULE, TWO_STORIES

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

ONCE = pytest.mark.parametrize("renderer", ["classic nodes"], indirect=True)
HOLD = """route => {  // the next answer of a route waits for sviGoOn()
    const fetchApi = app.api.fetchApi;
    delete window.sviGoOn;
    app.api.fetchApi = async function (asked, ...rest) {
        const reply = await fetchApi.call(this, asked, ...rest);
        if (asked !== route) return reply;
        app.api.fetchApi = fetchApi;
        await new Promise(done => { window.sviGoOn = done });
        return reply;
    };
}"""
HELD = "window.sviGoOn !== undefined"
GO_ON = "() => window.sviGoOn()"
LOAD = "workflow => app.loadGraphData(workflow)"
SAVED = "() => app.graph.serialize()"
TEXTS = "app.graph._nodes.filter(node => node.type === 'SVIPromptStream').map(node => node.widgets[0].value)"


@ONCE
def test_an_image_for_one_story_does_not_get_into_another(storyboard, front_end, renderer):
    page = storyboard.page
    page.evaluate(TWO_STORIES)
    storyboard.note_change()
    chooser = page.get_by_label("Story", exact=True)
    chooser.wait_for()
    page.evaluate(HOLD, "/upload/image")
    storyboard.drop_file(2, "late.png", 0.15)
    page.wait_for_function(HELD)
    chooser.select_option(chooser.locator("option", has_text="Second story").get_attribute("value"))
    storyboard.wait_for_cards(["another story.", "its end."])
    page.evaluate(GO_ON)
    storyboard.message.get_by_text("changed meanwhile").wait_for()
    assert page.evaluate(TEXTS) == [STORY, "another story.\n\nits end."]
    assert "SVINamedAnchor" not in front_end.node_types() and front_end.errors == []


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
