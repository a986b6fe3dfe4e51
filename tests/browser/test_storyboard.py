"""The storyboard in ComfyUI's own front end: every action is one edit of the text, by mouse and by keyboard."""

import re

import pytest

from tests.browser.storyboard import AT_REST, PROMPTS, STORY, TEXT

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

ONCE = pytest.mark.parametrize("renderer", ["classic nodes"], indirect=True)
SCROLL = """async () => {  // returns the largest number of elements on the way, and of items that came in one step
    const list = document.querySelector('.svi-board-list');
    let [elements, added] = [0, 0];
    const observer = new MutationObserver(changes => {
        added = Math.max(added, changes.reduce((sum, change) => sum + change.addedNodes.length, 0));
    });
    observer.observe(list.firstChild, {childList: true});
    for (let at = 0; at < list.scrollWidth; at += list.scrollWidth / 40) {
        list.scrollLeft = at;
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        elements = Math.max(elements, document.querySelectorAll('.svi-board *').length);
    }
    observer.disconnect();
    return [elements, added];
}"""

SLOW_LOADING = """() => {
    window.sviLoads = 0;
    app.registerExtension({name: 'test.slow loading', beforeConfigureGraph: async () => {
        window.sviLoads += 1;
        if (window.sviLoads === 1) await new Promise(done => setTimeout(done, 1500));
    }});
}"""


@ONCE
def test_a_prompt_is_edited_in_its_card_and_undone_in_one_step(storyboard, front_end, renderer, tmp_path):
    field = storyboard.card(2).locator("textarea")
    field.fill("the boat at night, in fog.")
    storyboard.page.keyboard.press("Enter")
    after = STORY.replace(PROMPTS[1], "the boat at night, in fog.")
    storyboard.wait_for_text(after)
    storyboard.message.get_by_text(re.compile(r"1 clip has to be made: 2\b")).wait_for()  # and its time, if it is known
    assert storyboard.covered_by(storyboard.message) == []
    front_end.screenshot(tmp_path / "edited.png")
    storyboard.undo(STORY)
    storyboard.wait_for_cards(PROMPTS)
    field.fill("thrown away")
    storyboard.page.keyboard.press("Escape")
    assert storyboard.card(2).locator("textarea").input_value() == PROMPTS[1] and storyboard.text() == STORY
    assert storyboard.page.evaluate("[window.sviHacked, document.querySelectorAll('.svi-card img[src=x]').length]") == [None, 0]
    assert front_end.errors == []


@ONCE
def test_the_keyboard_does_everything(storyboard, front_end, renderer):
    storyboard.choose(1)
    storyboard.page.keyboard.press("ArrowRight")
    storyboard.page.keyboard.press("End")
    storyboard.page.keyboard.press("ArrowLeft")
    assert storyboard.page.evaluate("document.activeElement.closest('.svi-board-item').ariaPosInSet") == "2"
    paragraphs = STORY.split("\n\n")
    storyboard.press("Alt+ArrowRight", "\n\n".join([paragraphs[0], paragraphs[2], paragraphs[1]]))
    storyboard.undo(STORY)
    storyboard.wait_for_cards(PROMPTS)
    storyboard.choose(1)
    storyboard.page.keyboard.press("Control+d")
    storyboard.wait_for_cards([PROMPTS[0], *PROMPTS])
    storyboard.page.keyboard.press("Delete")
    storyboard.wait_for_cards(PROMPTS)
    storyboard.choose(1)
    storyboard.page.keyboard.press("Insert")
    storyboard.page.wait_for_function("document.activeElement.value === 'Describe this clip.'")
    storyboard.page.keyboard.type("a storm comes up.")
    storyboard.page.keyboard.press("Enter")
    storyboard.wait_for_cards([PROMPTS[0], "a storm comes up.", *PROMPTS[1:]])
    storyboard.choose(4)
    storyboard.page.keyboard.press("s")
    storyboard.wait_for_cards([PROMPTS[0], "a storm comes up.", PROMPTS[1], "day breaks.", "the boat stays still."])
    assert "# a comment stays" in storyboard.text() and "[seed 7]" in storyboard.text()
    num_clips = next(
        node["inputs"]["num_clips"] for node in front_end.api_graph().values() if node["class_type"] == "SVIGenerate"
    )
    assert num_clips == 5
    assert front_end.errors == []


@ONCE
def test_chips_seams_and_menus_set_options(storyboard, front_end, renderer):
    page = storyboard.page
    storyboard.card(2).get_by_role("button", name="seed 7", exact=True).click()
    page.get_by_role("textbox", name="seed of clip 2").fill("123")
    page.keyboard.press("Enter")
    storyboard.wait_for_text(STORY.replace("[seed 7]", "[seed 123]"))
    storyboard.card(2).get_by_role("button", name="seed 123", exact=True).click()
    page.get_by_role("button", name="Use the default").click()
    page.wait_for_function(f"() => !({TEXT}).includes('seed')")
    storyboard.item(2).locator(".svi-seam-kind").click()
    page.wait_for_function(f"() => ({TEXT}).split('[cut]').length === 3")
    storyboard.card(2).locator(".svi-card-more").click()
    page.get_by_role("menuitem", name="Set an option").click()
    page.get_by_role("menuitem", name="hold").click()
    page.get_by_role("textbox", name="hold of clip 2").fill("16")
    page.keyboard.press("Enter")
    storyboard.card(2).get_by_role("button", name="hold 16", exact=True).wait_for()
    storyboard.card(3).get_by_role("button", name="cfg", exact=False).first.click()
    page.locator(".svi-board-field input").fill("many")
    page.keyboard.press("Enter")
    storyboard.message.get_by_text("many").wait_for()
    assert "many" not in storyboard.text() and front_end.errors == []


@ONCE
def test_a_card_is_dragged_to_another_place(storyboard, front_end, renderer, tmp_path):
    page = storyboard.page
    start, end = (storyboard.card(number).locator(".svi-card-picture").bounding_box() for number in (1, 2))
    page.mouse.move(start["x"] + 60, start["y"] + 40)
    page.mouse.down()
    page.mouse.move(end["x"] + 90, end["y"] + 40, steps=6)
    page.mouse.move(end["x"] + end["width"] + 6, end["y"] + 40, steps=4)
    hint = page.locator(".svi-board-drag-hint")
    hint.get_by_text(re.compile("Clip 1 becomes clip 2.*to be made")).wait_for()
    page.screenshot(path=tmp_path / "dragged.png")
    page.keyboard.press("Escape")
    page.mouse.up()
    assert storyboard.text() == STORY and hint.is_hidden()
    page.mouse.move(start["x"] + 60, start["y"] + 40)
    page.mouse.down()
    page.mouse.move(end["x"] + end["width"] + 6, end["y"] + 40, steps=6)
    page.mouse.up()
    storyboard.wait_for_cards([PROMPTS[1], PROMPTS[0], PROMPTS[2]])
    storyboard.message.get_by_text("Clip 1 is now clip 2.").wait_for()
    storyboard.undo(STORY)
    assert front_end.errors == []


@pytest.mark.parametrize(
    ("name", "height", "options"),
    [("harbour", 0.15, {"anchor"}), ("cut_here", 0.5, {"anchor", "cut"}), ("end_here", 0.85, {"end"})],
)
@ONCE
def test_a_dropped_image_becomes_an_anchor_a_cut_or_an_end(storyboard, front_end, renderer, name, height, options):
    page = storyboard.page
    before = set(front_end.api_graph())
    file = name.replace("_", " ") + ".png"
    storyboard.drop_file(2, file, height)
    storyboard.page.wait_for_function(f"() => ({TEXT}).includes('{name}')")
    line = storyboard.text().split("\n")[3]
    assert {option.split()[0] for option in line.strip("[]").split(", ")} == options | {"seed"}
    graph = front_end.api_graph()
    generate = next(node for node in graph.values() if node["class_type"] == "SVIGenerate")
    named = graph[generate["inputs"]["anchors"][0]]
    encoder = graph[named["inputs"]["anchor"][0]]
    loader = graph[encoder["inputs"]["image"][0]]
    assert named["inputs"]["name"] == name and encoder["inputs"]["vae"] == generate["inputs"]["vae"]
    assert (encoder["inputs"]["width"], encoder["inputs"]["height"]) == (64, 64)
    assert loader["inputs"]["image"] == file and len(set(graph) - before) == 3
    once = storyboard.text()
    storyboard.drop_file(3, file, height)  # the same image again
    page.wait_for_function(f"() => ({TEXT}).split('{name}').length === 3")
    assert set(front_end.api_graph()) == set(graph), "the same image needs no further nodes"
    for before in (once, STORY):
        storyboard.choose(1)
        storyboard.undo(before)
    page.wait_for_function("() => !app.graph._nodes.some(node => node.type === 'SVINamedAnchor')")
    assert front_end.errors == []


@ONCE
def test_an_edit_while_a_graph_loads_is_made_in_it_or_refused(storyboard, front_end, renderer):
    """The front end replaces its graph some time after Ctrl+Z: what was written into the graph of before would be lost."""
    page = storyboard.page
    page.evaluate(SLOW_LOADING)
    storyboard.choose(1)
    page.keyboard.press("Control+d")
    storyboard.wait_for_cards([PROMPTS[0], *PROMPTS])
    page.wait_for_function(AT_REST)
    page.keyboard.press("Control+z")
    page.wait_for_function("window.sviLoads === 1")
    storyboard.drop_file(1, "kept.png", 0.15)  # a clip that the undone story has, too
    storyboard.drop_file(2, "refused.png", 0.15)  # the copy, which it has not
    storyboard.message.get_by_text("changed meanwhile").wait_for()
    storyboard.wait_for_text("[anchor kept]\n" + STORY)
    assert storyboard.queued("SVINamedAnchor")["name"] == "kept"
    storyboard.choose(1)
    storyboard.undo(STORY)
    assert front_end.errors == []


@ONCE
def test_an_image_is_chosen_by_keyboard_and_other_files_are_refused(storyboard, front_end, renderer, reference_image):
    page = storyboard.page
    storyboard.choose(2)
    page.keyboard.press("i")
    page.keyboard.press("ArrowDown")
    page.get_by_role("menuitem", name="Cut to this image").and_(page.locator(":focus")).wait_for()
    with page.expect_file_chooser() as chooser:
        page.evaluate("0")  # Chromium intercepts the chooser from the next answer on
        page.keyboard.press("Enter")
    chooser.value.set_files(reference_image)
    page.wait_for_function(f"() => /anchor reference/.test({TEXT}) && ({TEXT}).split('cut').length === 3")
    before = storyboard.text()
    storyboard.drop_file(2, "notes.txt", 0.5)
    storyboard.message.get_by_text("notes.txt is not an image").wait_for()
    assert storyboard.text() == before and front_end.errors == []


@ONCE
def test_quick_edits_mean_the_clips_that_the_cards_showed(storyboard, front_end, renderer):
    """Three clicks before the first answer: all of them mean the cards that were there, and num_clips counts both new clips."""
    storyboard.page.evaluate(
        """() => {
            const [, second, third] = document.querySelectorAll('.svi-board-item');
            second.querySelector('.svi-seam-insert').click();
            second.querySelector('.svi-seam-insert').click();
            third.querySelector('.svi-seam-kind').click();
        }"""
    )
    new = "Describe this clip."
    storyboard.wait_for_cards([PROMPTS[0], new, new, *PROMPTS[1:]])
    storyboard.page.wait_for_function(f"() => !({TEXT}).includes('cut')")
    assert storyboard.queued("SVIGenerate")["num_clips"] == 5
    storyboard.page.evaluate(
        """() => {  // the second press means a clip that the first one took away
            const card = document.querySelectorAll('.svi-card')[1];
            card.focus();
            const press = () => card.dispatchEvent(new KeyboardEvent('keydown', {key: 'Delete', bubbles: true}));
            press();
            press();
        }"""
    )
    storyboard.message.get_by_text("not in the text any more").wait_for()
    storyboard.wait_for_cards([PROMPTS[0], new, *PROMPTS[1:]])
    assert storyboard.queued("SVIGenerate")["num_clips"] == 4 and front_end.errors == []


@ONCE
def test_what_is_typed_meanwhile_is_never_overwritten(storyboard, front_end, renderer):
    storyboard.page.evaluate(
        """() => {
            const fetchApi = app.api.fetchApi;
            app.api.fetchApi = async function (route, ...rest) {
                const reply = await fetchApi.call(this, route, ...rest);
                if (route !== '/svi/edit') return reply;
                app.api.fetchApi = fetchApi;
                WIDGET = 'typed meanwhile.';
                return reply;
            };
        }""".replace("WIDGET", TEXT)
    )
    storyboard.choose(1)
    storyboard.page.keyboard.press("Control+d")
    storyboard.message.get_by_text("changed meanwhile").wait_for()
    storyboard.page.wait_for_function("document.querySelector('.svi-card-prompt').value === 'typed meanwhile.'")
    assert storyboard.text() == "typed meanwhile." and storyboard.queued("SVIGenerate")["num_clips"] == 3
    assert front_end.errors == []


@ONCE
def test_an_edit_is_made_though_the_board_closes_before_it_knows_the_text(storyboard, front_end, renderer):
    after = STORY.replace(PROMPTS[2], "typed into the node.")
    storyboard.page.evaluate(
        """async text => {
            const card = document.querySelector('.svi-card');
            WIDGET = text;
            card.dispatchEvent(new KeyboardEvent('keydown', {key: 'd', ctrlKey: true, bubbles: true}));
            await app.extensionManager.command.execute('SVI.Storyboard.Toggle');
        }""".replace("WIDGET", TEXT),
        after,
    )
    storyboard.wait_for_text(f"{PROMPTS[0]}\n\n{after}")
    storyboard.board.wait_for(state="detached")
    storyboard.open()
    storyboard.wait_for_cards([PROMPTS[0], *PROMPTS[:2], "typed into the node."])
    assert front_end.errors == []


@ONCE
def test_a_thousand_cards_are_as_light_as_ten(storyboard, front_end, renderer, tmp_path):
    page = storyboard.page
    front_end.set_widgets("SVIGenerate", {"num_clips": 1000})
    storyboard.write("\n\n".join(f"clip number {number}" for number in range(1, 1001)))
    page.wait_for_function("document.querySelector('.svi-board-item')?.ariaSetSize === '1000'")
    storyboard.choose(1)
    page.keyboard.press("End")
    storyboard.card(1000).wait_for()
    assert storyboard.card(1000).locator("textarea").input_value() == "clip number 1000"
    page.keyboard.press("PageUp")
    counts = "[document.querySelectorAll('.svi-board *').length, document.querySelectorAll('.svi-board video').length]"
    num_elements, num_videos = page.evaluate(counts)
    assert num_elements < 1200 and num_videos == 0 and storyboard.cards.count() < 20
    num_elements, num_added = page.evaluate(SCROLL)
    assert num_elements < 1200 and 0 < num_added < 20
    page.screenshot(path=tmp_path / "thousand.png")
    storyboard.choose(int(page.evaluate("document.querySelector('.svi-card:last-child').parentElement.ariaPosInSet")))
    assert page.evaluate(counts)[0] < 1300 and front_end.errors == []
