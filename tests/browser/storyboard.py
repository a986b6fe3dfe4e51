"""The storyboard as a user meets it, for the tests of its page."""

from __future__ import annotations

import itertools
import time
from typing import Any

from playwright.sync_api import Locator

from tests.browser.front_end import TIMEOUT_MS, FrontEnd
from tests.e2e import shipped

RUN_MS = 300_000
NUMBERS = itertools.count()
STORY = """the red boat sails to the right.

# a comment stays
[seed 7]
the boat <img src=x onerror="window.sviHacked = true"> at night.

[cut]
day breaks. the boat stays still."""
PROMPTS = [
    "the red boat sails to the right.",
    'the boat <img src=x onerror="window.sviHacked = true"> at night.',
    "day breaks. the boat stays still.",
]
TWO_STORIES = """text => {  // the first stream through a Reroute, and a second loop with a stream of its own
    const find = type => app.graph._nodes.find(node => node.type === type);
    const slot = (node, name) => node.inputs.findIndex(input => input.name === name);
    const [stream, loop, bend] = [find('SVIPromptStream'), find('SVIGenerate'), LiteGraph.createNode('Reroute')];
    app.graph.add(bend);
    stream.connect(0, bend, 0);
    bend.connect(0, loop, slot(loop, 'prompts'));
    const [other, second] = [stream.clone(), loop.clone()];
    [other, second].forEach(node => app.graph.add(Object.assign(node, {id: -1})));  // as pasting does: the graph gives an id
    second.title = 'Second story';
    other.widgets.find(widget => widget.name === 'text').value = text;
    second.widgets.find(widget => widget.name === 'num_clips').value = 2;
    const connectAs = (node, copy) => node.inputs.forEach((_, number) => {
        const link = node.getInputLink(number);
        if (link) app.graph.getNodeById(link.origin_id).connect(link.origin_slot, copy, number);
    });
    connectAs(stream, other);
    connectAs(loop, second);
    other.connect(0, second, slot(second, 'prompts'));
}"""
SECOND_STORY = "another story.\n\nits end."
STREAM = "app.graph._nodes.find(node => node.type === 'SVIPromptStream')"
TEXT = f"{STREAM}.widgets.find(widget => widget.name === 'text').value"
SHOWN = "[...document.querySelectorAll('.svi-card-prompt')].map(box => box.value)"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
AT_REST = """() => {  // the front end takes no further undo while it loads the graph of one
    const tracker = app.extensionManager.workflow.activeWorkflow?.changeTracker;
    return tracker && !tracker._restoringState && !tracker.constructor.isLoadingGraph;
}"""
COVERED = """element => {
    const box = element.getBoundingClientRect();
    const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    const list = document.querySelector('.svi-board-list');  // cards that are scrolled out of it are not seen
    const meets = one => meet(box, one.getBoundingClientRect());
    const covers = one => meets(one) && (!list.contains(one) || meets(list));
    return [...document.querySelectorAll('.svi-board button')]
        .filter(one => one.offsetWidth && !element.contains(one) && covers(one))
        .map(one => one.textContent);
}"""
DROP_FILE = """(card, [name, height, data]) => {
    const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name, {type: name.endsWith('.png') ? 'image/png' : 'text/plain'}));
    const box = card.getBoundingClientRect();
    const at = {dataTransfer, bubbles: true, cancelable: true, clientX: box.x + 50, clientY: box.y + box.height * height};
    card.dispatchEvent(new DragEvent('dragover', at));
    card.dispatchEvent(new DragEvent('drop', at));
}"""

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


class Storyboard:
    """The storyboard as a user meets it."""

    def __init__(self, front_end: FrontEnd):
        self.front_end = front_end
        self.page = front_end.page
        self.board = self.page.locator(".svi-board")
        self.cards = self.page.locator(".svi-card")
        self.message = self.page.locator(".svi-board-message")
        self.notice = self.page.locator(".svi-board-notice")

    def open(self) -> None:
        if not self.board.count():
            self.page.locator("#graph-canvas").focus()
            self.page.keyboard.press("Alt+s")
        self.board.wait_for()

    def note_change(self) -> None:
        """Let the front end note what a script changed as one undo step, as it does after a click."""
        self.page.evaluate("() => { app.canvas.emitBeforeChange(); app.canvas.emitAfterChange() }")

    def card(self, number: int) -> Locator:
        return self.page.locator(f".svi-board-item[aria-posinset='{number}'] .svi-card")

    def item(self, number: int) -> Locator:
        return self.page.locator(f".svi-board-item[aria-posinset='{number}']")

    def write(self, text: str) -> None:
        """Write into the widget of SVI Prompt Stream, and wait for the cards."""
        self.front_end.set_widgets("SVIPromptStream", {"text": text})

    def text(self) -> str:
        return self.page.evaluate(TEXT)

    def wait_for_text(self, text: str) -> None:
        self.page.wait_for_function(f"text => ({TEXT}) === text", arg=text)

    def wait_for_queued_text(self, text: str) -> None:
        """Wait for the text that is queued, wherever it is written: here, since wait_for_function takes a promise for true."""
        deadline = time.monotonic() + TIMEOUT_MS / 1000
        while text not in (texts := [inputs["text"] for inputs in self.all_queued("SVIPromptStream")]):
            assert time.monotonic() < deadline, f"queued are {texts}"
            self.page.wait_for_timeout(50)

    def wait_for_cards(self, prompts: list[str]) -> None:
        self.page.wait_for_function(f"prompts => ({SHOWN}).join('|') === prompts.join('|')", arg=prompts)

    def choose(self, number: int) -> None:
        """Give the keyboard to a card."""
        self.card(number).focus()
        self.page.wait_for_function(
            "number => document.activeElement.closest('.svi-board-item')?.ariaPosInSet === number", arg=str(number)
        )

    def press(self, key: str, text: str) -> None:
        """Press a key on the chosen card and wait for the text that it makes."""
        self.page.keyboard.press(key)
        self.wait_for_text(text)

    def undo(self, text: str) -> None:
        """One undo step leads back to `text`."""
        self.page.wait_for_function(AT_REST)
        self.page.keyboard.press("Control+z")
        self.wait_for_text(text)

    def prompts(self) -> list[str]:
        return self.page.evaluate(SHOWN)

    def drop_file(self, number: int, name: str, height: float) -> None:
        """Drop a file onto a card, at a part of its height from the top."""
        self.card(number).evaluate(DROP_FILE, [name, height, PIXEL])  # in one call: the board draws its cards anew at any time

    def add_second_story(self) -> None:
        """Add a second SVI Generate with a stream of its own, which the storyboard offers beside the first."""
        self.page.evaluate(TWO_STORIES, SECOND_STORY)
        self.note_change()
        self._chooser.wait_for()
        self.wait_for_cards(PROMPTS)

    def choose_second_story(self) -> None:
        second = self._chooser.locator("option", has_text="Second story").get_attribute("value")
        self._chooser.select_option(second)
        self.wait_for_cards(SECOND_STORY.split("\n\n"))

    @property
    def _chooser(self) -> Locator:
        return self.page.get_by_label("Story", exact=True)

    def covered_by(self, element: Locator) -> list[str]:
        """Return the buttons of the storyboard that an element of the page lies over."""
        return element.evaluate(COVERED)

    def wait_for_states(self, *states: str) -> None:
        script = (
            "states => [...document.querySelectorAll('.svi-card')].map(card => card.dataset.state).join() === states.join()"
        )
        self.page.wait_for_function(script, arg=list(states), timeout=RUN_MS)

    def queued(self, class_type: str) -> dict[str, Any]:
        """Return the inputs of the first node of a class in the queued graph."""
        return self.all_queued(class_type)[0]

    def all_queued(self, class_type: str) -> list[dict[str, Any]]:
        """Return the inputs of all nodes of a class in the queued graph."""
        return [node["inputs"] for node in self.front_end.api_graph().values() if node["class_type"] == class_type]


def open_storyboard(front_end: FrontEnd) -> Storyboard:
    """Open the demo's workflow, made small, with a story of three clips, and the storyboard."""
    front_end.open_template(shipped.DEMO)
    for node_type, values in shipped.small_widgets(front_end.api_graph()).items():
        front_end.set_widgets(node_type, values)
    run = f"browser/storyboard none {next(NUMBERS)}"
    front_end.set_widgets("SVIGenerate", {"filename_prefix": run, "num_clips": 3})
    front_end.set_widgets("SVIPromptStream", {"text": STORY})
    storyboard = Storyboard(front_end)
    storyboard.note_change()
    storyboard.open()
    storyboard.board.locator(".svi-board-run").get_by_text(run, exact=True).wait_for()  # the page may show the graph of before
    storyboard.wait_for_cards(PROMPTS)
    return storyboard
