"""Drive ComfyUI's real front end in a real Chromium: what a user does, with the waits that a loaded machine needs.

Every wait polls for a state; what the front end sometimes loses (a click too early, a graph replaced by the default one)
is done again. Selectors are those of front end 1.47.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, Request, Route
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from comfyui.server import PACK_NAME
from tests.e2e import shipped

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {  # no tutorial, no saved tabs, and no questions to the network
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.Persist": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,
    "Comfy.Minimap.Visible": False,
    "Comfy.RightSidePanel.IsOpen": False,
}
TIMEOUT_MS = 120_000
ATTEMPT_MS = 5_000
READY = """() => window.app?.graph && app.extensionManager && document.querySelector('#graph-canvas')
    && LiteGraph.registered_node_types['SVIGenerate']"""
CROWDING = """() => {  // a node that shows a video asks for more width than it has, whatever it has
    const asksForWidth = node => !(node.widgets || []).some(widget => widget.name === 'video-preview');
    const nodes = app.graph._nodes.map(node => ({
        name: `${node.type} ${node.id}`, box: [...node.getBounding()], size: [...node.size], least: [...node.computeSize()],
        asksForWidth: asksForWidth(node)}));
    const groups = app.graph._groups.map(group => [...group._bounding]);  // a graph of five nodes has none
    const meet = (a, b) => a[0] < b[0] + b[2] && b[0] < a[0] + a[2] && a[1] < b[1] + b[3] && b[1] < a[1] + a[3];
    const inside = (a, b) => a[0] >= b[0] && a[1] >= b[1] && a[0] + a[2] <= b[0] + b[2] && a[1] + a[3] <= b[1] + b[3];
    return {
        overlapping: nodes.flatMap((a, i) => nodes.slice(i + 1).filter(b => meet(a.box, b.box)).map(b => [a.name, b.name])),
        too_small: nodes.filter(n => n.asksForWidth && n.size[0] + 1 < n.least[0] || n.size[1] + 1 < n.least[1])
            .map(n => n.name),
        outside: nodes.filter(n => groups.length && !groups.some(group => inside(n.box, group))).map(n => n.name),
        groups: groups.flatMap((a, i) => groups.slice(i + 1).filter(b => meet(a, b))),
    };
}"""
LOAD_TEMPLATE = """async ([pack, name]) => {
    const answer = await app.api.fetchApi(`/workflow_templates/${pack}/${encodeURIComponent(name)}.json`);
    await app.loadGraphData(await answer.json(), true, true, name, {openSource: 'template'});
}"""
TOAST = ".p-toast-message, [role=alert].pointer-events-auto, [role=dialog].pointer-events-auto"  # before 1.58, and since
TOLD = f"[...document.querySelectorAll('.svi-board-message, .svi-board-notice, .svi-card, .svi-foot, .svi-text, {TOAST}')]"
VIDEO = """() => [...document.querySelectorAll('video:not(.svi-clips video)')]
    .filter(v => v.readyState >= 2 && v.videoWidth > 0)
    .map(v => ({width: v.videoWidth, height: v.videoHeight, seconds: v.duration, source: v.currentSrc}))[0]"""


class FrontEnd:
    """The front end of a running server, open in a browser page."""

    def __init__(self, browser: Browser, url: str, width: int = 1600, height: int = 1000) -> None:
        self.url = url
        self.errors: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(TIMEOUT_MS)
        self.page.route("**/*", self._only_local)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.load()

    def load(self) -> None:
        """Load the page, and show an empty graph."""
        self.page.goto(self.url)
        self.page.wait_for_function(READY)
        self.new_graph()

    def close(self) -> None:
        self.page.close()

    def toast(self, text: str | re.Pattern[str]) -> Locator:
        """Return the message over the page that says `text`."""
        return self.page.locator(TOAST).filter(has_text=text)

    def told(self) -> str:
        """Return which workflow is shown, what the page tells, one line for each place, and the errors of its scripts."""
        lines = self.page.evaluate(f"{TOLD}.map(one => `${{one.className}}: ${{one.innerText.replaceAll('\\n', ' | ')}}`)")
        shown = self.page.evaluate("app.extensionManager.workflow?.activeWorkflow?.path")
        return "\n".join([f"workflow: {shown}", *lines, *(f"error: {error}" for error in self.errors)])

    def command(self, name: str) -> None:
        """Run a command of the front end."""
        self.page.evaluate("name => app.extensionManager.command.execute(name)", name)

    def refresh_choices(self) -> None:
        """Read the lists of files again: the page rings a Load Image red whose file it does not know."""
        self.page.evaluate("() => app.refreshComboInNodes()")

    def new_graph(self) -> None:
        """Show an empty graph; the default graph may load late and replace it, so it is asked for again."""
        self.page.keyboard.press("Escape")
        self._until(lambda: self.command("Comfy.NewBlankWorkflow"), lambda: self._becomes("app.graph._nodes.length === 0"))

    def find_node(self, text: str, name: str) -> None:
        """Search for `text` and wait until the node called `name` is among the results."""
        box = self.page.get_by_role("combobox", name="Add a node...")
        if not box.is_visible():
            self._until(lambda: self.page.mouse.dblclick(700, 500, delay=5), lambda: self._appears(box))
        results = self.page.get_by_test_id("result-item")
        exactly = results.filter(has=self.page.get_by_text(name, exact=True))
        self._until(lambda: box.fill(text), lambda: self._appears(exactly))

    def open_template(self, name: str) -> None:
        """Open a workflow from the template browser, or the demo's, which is no template, from its file."""
        if name == shipped.DEMO:
            self.page.evaluate("workflow => app.loadGraphData(workflow)", shipped.read(name))
            self.page.wait_for_function("app.graph._nodes.length > 0")
            return
        dialog = self.page.get_by_role("dialog")
        card = dialog.get_by_test_id(f"template-workflow-{name}")
        button = self.page.get_by_role("button", name="Templates").first
        self._until_clicked(button, lambda: self._appears(dialog))
        self._until_clicked(dialog.get_by_text(PACK_NAME).first, lambda: self._appears(card))
        self._until_clicked(card, lambda: self._becomes("app.graph._nodes.length > 0"))

    def open_tab(self, name: str) -> None:
        """Show another open workflow by its tab; on a slow page the front end sometimes clears the graph and loads none."""
        tab = self.page.locator(".workflow-tab").filter(has_text=re.compile(rf"^\s*{re.escape(name)}\b"))
        shown = f"app.extensionManager.workflow.activeWorkflow.path.endsWith('/{name}.json') && app.graph._nodes.length > 0"
        self._until_clicked(tab, lambda: self._becomes(shown))

    def load_template(self, name: str) -> None:
        """Open a workflow as a click on its card does, without the template browser: its pictures cost ten times as much."""
        self.page.evaluate(LOAD_TEMPLATE, [PACK_NAME, name])
        self.page.wait_for_function("app.graph._nodes.length > 0")

    def templates(self) -> list[str]:
        """Return the workflows of the pack that the template browser shows, and close it."""
        dialog = self.page.get_by_role("dialog")
        cards = dialog.locator("[data-testid^=template-workflow-]")
        button = self.page.get_by_role("button", name="Templates").first
        self._until_clicked(button, lambda: self._appears(dialog))
        name = f"template-workflow-{shipped.TEMPLATES[0]}"
        self._until_clicked(dialog.get_by_text(PACK_NAME).first, lambda: self._appears(dialog.get_by_test_id(name)))
        found = cards.evaluate_all("all => all.map(card => card.dataset.testid.replace('template-workflow-', ''))")
        self._until(lambda: self.page.keyboard.press("Escape"), lambda: not dialog.is_visible())
        return found

    def show_help(self, node_type: str) -> None:
        """Select a node of the graph and open its help page."""
        select = """type => { const node = app.graph._nodes.find(node => node.type === type);
            app.canvas.centerOnNode(node); app.canvas.selectNode(node) }"""  # its buttons may lie below those of the page
        button = self.page.get_by_test_id("info-button")
        self._until(lambda: self.page.evaluate(select, node_type), lambda: self._appears(button))
        button.click()

    def set_widgets(self, node_type: str, values: dict[str, Any]) -> None:
        """Set widgets of all nodes of a type, as typing into them does."""
        script = """([type, values]) => app.graph._nodes.filter(node => node.type === type).forEach(node =>
            node.widgets.filter(widget => widget.name in values).forEach(widget => {
                widget.value = values[widget.name]; widget.callback?.(widget.value) }))"""
        self.page.evaluate(script, [node_type, values])

    def set_inner_widgets(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Set widgets inside the subgraph on the page: node type -> widget values."""
        script = """values => app.graph._nodes.filter(node => node.isSubgraphNode?.()).forEach(({ subgraph }) =>
            subgraph._nodes.forEach(node => Object.entries(values[node.type] ?? {}).forEach(([name, value]) => {
                const widget = node.widgets.find(one => one.name === name);
                widget.value = value; widget.callback?.(value) })))"""
        self.page.evaluate(script, values)

    def set_folded_widget(self, name: str, value: Any) -> None:
        """Set a widget of the subgraph on the page, as typing into it does."""
        script = """([name, value]) => {
            const widget = app.graph._nodes.find(node => node.isSubgraphNode?.()).widgets.find(one => one.name === name);
            widget.value = value; widget.callback?.(value) }"""
        self.page.evaluate(script, [name, value])

    def api_graph(self) -> dict[str, Any]:
        """Return the graph in API format, as the front end would queue it."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def node_types(self) -> list[str]:
        return self.page.evaluate("() => app.graph._nodes.map(node => node.type)")

    def zoom(self) -> float:
        """Return how large the page shows the graph; 1 is full size."""
        return self.page.evaluate("app.canvas.ds.scale")

    def enter_app_mode(self) -> None:
        """Show the form and the player in place of the graph."""
        form = self.page.get_by_test_id("linear-widgets")
        self._until(lambda: form.is_visible() or self.command("Comfy.ToggleLinear"), lambda: self._appears(form))

    def leave_app_mode(self) -> None:
        """Show the graph again."""
        form = self.page.get_by_test_id("linear-widgets")
        self.command("Comfy.ToggleLinear")
        form.wait_for(state="hidden")

    def place_found(self, name: str) -> None:
        """Add the node called `name` from the results of a search to the graph."""
        result = self.page.get_by_test_id("result-item").filter(has=self.page.get_by_text(name, exact=True)).first
        self._until_clicked(result, lambda: self._becomes("!document.querySelector('[data-testid=result-item]')"))
        placed = "app.graph._nodes.length === 1"
        self._until(lambda: self.page.mouse.click(700, 300), lambda: self._becomes(placed))

    def missing_node_types(self) -> list[str]:
        """Return the types in the graph that no installed pack has."""
        return self.page.evaluate(
            "() => app.graph._nodes.map(n => n.type).filter(type => !(type in LiteGraph.registered_node_types))"
        )

    def crowding(self) -> dict[str, list[Any]]:
        """Return nodes that overlap, are smaller than their content or lie outside of every group, and overlapping groups."""
        return self.page.evaluate(CROWDING)

    def run(self) -> None:
        """Press Run until the server takes the graph."""
        self.page.evaluate("() => app.api.addEventListener('execution_start', () => { window.sviStarted = true })")
        button = self.page.get_by_test_id("queue-button")
        self._until_clicked(button, lambda: self._becomes("window.sviStarted === true", 20_000))

    def shown_video(self, timeout_ms: int) -> dict[str, Any]:
        """Return size, length and address of the first video that the page shows, SVI Generate's clips aside."""
        self.command("Comfy.Canvas.FitView")
        return self.page.wait_for_function(VIDEO, timeout=timeout_ms).json_value()

    def fit_view(self) -> None:
        """Bring the whole graph into view and wait until the movement has ended."""
        self.command("Comfy.Canvas.FitView")
        self.settle()

    def settle(self) -> None:
        """Wait until the view no longer moves."""
        view = "() => [app.canvas.ds.scale, ...app.canvas.ds.offset].join()"
        before = None
        while (after := self.page.evaluate(view)) != before:
            before = after
            self.page.evaluate("() => new Promise(done => setTimeout(() => requestAnimationFrame(done), 100))")

    def screenshot(self, path: Path) -> None:
        """Store a picture of the whole graph."""
        self.fit_view()
        self.page.screenshot(path=path)

    def _only_local(self, route: Route, request: Request) -> None:
        if request.url.startswith((self.url, "data:", "blob:")):
            route.continue_()
        else:
            route.abort()

    def _until(self, action: Callable[[], Any], done: Callable[[], bool]) -> None:
        """Do `action` until `done`, for TIMEOUT_MS."""
        deadline = time.monotonic() + TIMEOUT_MS / 1000
        while True:
            action()
            if done():
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"the front end did not follow; errors of the page: {self.errors}")

    def _until_clicked(self, locator: Any, done: Callable[[], bool]) -> None:
        """Click until `done`; what opened late may cover the button, and then a second click never gets through."""

        def click() -> None:
            with contextlib.suppress(PlaywrightTimeout):  # `done` tells whether an earlier click arrived after all
                locator.click(timeout=ATTEMPT_MS)

        self._until(click, done)

    def _appears(self, locator: Any) -> bool:
        try:
            locator.first.wait_for(timeout=ATTEMPT_MS)
            return True
        except PlaywrightTimeout:
            return False

    def _becomes(self, condition: str, timeout_ms: int = ATTEMPT_MS) -> bool:
        try:
            self.page.wait_for_function(condition, timeout=timeout_ms)
            return True
        except PlaywrightTimeout:
            return False
