"""What the page says without being asked: the parser while a text is typed, errors in their own words, and how far a run is."""

import json

import pytest

from tests.browser.test_plan import numbered
from tests.e2e.graphs import PROMPTS, loop_graph

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

CLASSIC_FIRST = pytest.mark.parametrize(
    "renderer", ["classic nodes", pytest.param("Vue nodes", marks=pytest.mark.slow)], indirect=True
)
RED = "rgb(255, 138, 122)"
RUN_MS = 300_000
NOTE_REMOVED = """() => {
    const {toast} = app.extensionManager;
    window.sviRemoved = [];
    const note = text => { if (text?.includes("'seede 4'")) window.sviRemoved.push(text) };
    const {error, dismiss, remove} = toast;  // a toast also goes by itself after a minute
    const texts = new Map();
    if (dismiss) {  // since front end 1.58
        toast.error = (title, options) => {
            const id = error(title, options);
            texts.set(id, options.description);
            return id;
        };
        toast.dismiss = id => { note(texts.get(id)); return dismiss(id) };
    } else {
        toast.remove = message => { note(message.detail); remove(message) };
    }
}"""


@pytest.fixture
def story(front_end, comfy_server, reference_image, renderer):
    """A function that opens a loop of this test's own folder, as a workflow of its own."""

    def open_story(name, **options):
        image = comfy_server.add_input(reference_image)
        front_end.refresh_choices()
        graph = loop_graph(image, filename_prefix=f"svi/messages {name} {renderer}", **options)
        front_end.page.evaluate("([graph, name]) => app.loadApiJson(graph, name)", [numbered(graph), name])
        front_end.fit_view()

    return open_story


def status_of(front_end, node_type, name):
    return front_end.page.locator(f".svi-text.{name}.{node_type}")


@CLASSIC_FIRST
def test_the_parser_speaks_while_the_text_is_typed(front_end, story, renderer, tmp_path):
    story("typing", clips=0)
    lint = status_of(front_end, "SVIPromptStream", "svi_lint")
    lint.get_by_text("3 clips").wait_for()
    boxes = front_end.page.locator("textarea")
    box = boxes.nth(boxes.evaluate_all(f"all => all.findIndex(box => box.value.startsWith({json.dumps(PROMPTS[0])}))"))
    box.fill("a boat.\n\n[seede 3, cut]\nthe boat turns.")
    lint.get_by_text("Line 3, column 2: option 'seede 3' is not known").wait_for()
    assert lint.evaluate("element => getComputedStyle(element).color") == RED
    front_end.screenshot(tmp_path / "lint.png")
    box.fill("a boat.\n\n[seed 3, cut]\nthe boat turns.")
    lint.get_by_text("2 clips").wait_for()
    box.fill("a cat | a dog")
    lint.get_by_text("Line 1, column 7: '|' is part of the prompt").wait_for()


@CLASSIC_FIRST
def test_one_mistake_is_one_error_on_its_widget_in_its_own_words(front_end, story, renderer, tmp_path):
    story("refused", clips=0)
    front_end.set_widgets("SVIPromptStream", {"text": "a boat.\n\n[seede 3, cut]\nthe boat turns."})
    front_end.page.get_by_test_id("queue-button").click()
    toast = front_end.toast("schedule, line 3, column 2: option 'seede 3'")
    toast.wait_for()
    front_end.screenshot(tmp_path / "refused.png")
    assert toast.count() == 1
    errors = front_end.page.evaluate("() => app.lastNodeErrors")
    inputs = [error["extra_info"]["input_name"] for node in errors.values() for error in node["errors"]]
    assert inputs == ["text"], json.dumps(errors)


@CLASSIC_FIRST
def test_an_error_stays_until_the_text_of_its_own_workflow_is_mended(front_end, story, renderer):
    """Both workflows have an SVI Prompt Stream of the same id."""
    page, lint = front_end.page, status_of(front_end, "SVIPromptStream", "svi_lint")
    page.evaluate(NOTE_REMOVED)
    story("left", clips=0)
    front_end.set_widgets("SVIPromptStream", {"text": "[seede 4]\na boat."})
    lint.get_by_text("option 'seede 4' is not known").wait_for()
    page.get_by_test_id("queue-button").click()
    toast = front_end.toast("option 'seede 4'")
    toast.wait_for()
    story("healthy", clips=0)
    lint.get_by_text("3 clips").wait_for()
    assert page.evaluate("window.sviRemoved") == []
    front_end.open_tab("left")
    lint.get_by_text("option 'seede 4' is not known").wait_for()
    assert page.evaluate("window.sviRemoved") == []
    page.get_by_test_id("queue-button").click()  # the new error takes the place of that before
    page.wait_for_function("window.sviRemoved.length === 1")
    toast.first.wait_for()
    front_end.set_widgets("SVIPromptStream", {"text": "a boat."})
    page.wait_for_function("window.sviRemoved.length === 2")


@CLASSIC_FIRST
def test_a_run_tells_its_clip_and_what_is_kept_when_it_is_cancelled(front_end, story, renderer, tmp_path):
    story("cancelled", clips=4, steps=400)
    front_end.run()
    status = status_of(front_end, "SVIGenerate", "svi_status")
    status.get_by_text("Clip 2 of 4: sampling, step").wait_for(timeout=RUN_MS)
    front_end.fit_view()
    front_end.page.screenshot(path=tmp_path / "running.png")
    assert "left for this clip" in status.inner_text() and "for the run" in status.inner_text()
    front_end.page.evaluate("() => app.api.interrupt(null)")
    status.get_by_text("Stopped: 1 of 4 clips kept; Run goes on from there.").wait_for()
    front_end.toast("1 of 4 clips kept").wait_for()
    front_end.page.screenshot(path=tmp_path / "stopped.png")
    assert front_end.errors == []


@CLASSIC_FIRST
def test_a_schedule_of_another_length_is_told(front_end, story, renderer, tmp_path):
    story("length", clips=1, steps=1)
    front_end.run()
    front_end.toast("the schedule describes 3 clips, but num_clips is 1").wait_for()
    status_of(front_end, "SVIGenerate", "svi_status").get_by_text("1 clip: 1 made").wait_for(timeout=RUN_MS)
    front_end.screenshot(tmp_path / "length.png")
