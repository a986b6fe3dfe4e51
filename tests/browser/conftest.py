"""A real Chromium, and ComfyUI's real front end in it."""

import shutil
from collections.abc import Generator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from comfyui.server import ComfyServer
from tests.browser.front_end import CHROMIUM_ARGUMENTS, CHROMIUM_NAMES, SETTINGS, FrontEnd
from tests.browser.storyboard import Storyboard, open_storyboard


class OpenPages:
    """A Chromium for all files of this folder, and the front end in one page of it: opening takes longer than a test."""

    def __init__(self) -> None:
        self._closing = ExitStack()
        self._browser: Browser | None = None
        self._page: tuple[str, FrontEnd] | None = None

    @property
    def browser(self) -> Browser:
        if self._browser is None:
            found = next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)
            if found is None:
                pytest.skip(f"no Chromium on this machine (looked for {', '.join(CHROMIUM_NAMES)}): apt-get install chromium")
            playwright = self._closing.enter_context(sync_playwright())
            self._browser = playwright.chromium.launch(executable_path=found, headless=True, args=CHROMIUM_ARGUMENTS)
            self._closing.callback(self._browser.close)
        return self._browser

    def front_end(self, server: ComfyServer, renderer: str) -> FrontEnd:
        """Return the front end with a renderer, just loaded; the page with the other one is closed."""
        # again for each file: what tests open, as the side panel with a help page, the front end keeps among its settings
        server.post_json("/settings", SETTINGS | {"Comfy.VueNodes.Enabled": renderer == "Vue nodes"})
        if self._page is not None and self._page[0] == renderer:
            self._page[1].load()
            return self._page[1]
        if self._page is not None:
            self._page[1].close()
        self._page = renderer, FrontEnd(self.browser, server.url)
        return self._page[1]

    def close(self) -> None:
        self._browser = self._page = None
        self._closing.close()


PAGES = OpenPages()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Close the browser behind the last test of this folder: asyncio.run() fails where Playwright's own loop is open."""
    if nextitem is None or item.path.parent != nextitem.path.parent:
        PAGES.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, Any, pytest.TestReport]:
    """Put what the page told its user into the report of a test that failed."""
    report = yield
    front_end = getattr(item, "funcargs", {}).get("front_end")
    if report.failed and call.when == "call" and isinstance(front_end, FrontEnd):
        with suppress(PlaywrightError):  # the page may be gone; the test's own error is what counts
            report.sections.append(("what the page told", front_end.told()))
    return report


@pytest.fixture
def chromium() -> Browser:
    """A headless Chromium; without one the browser tests are skipped."""
    return PAGES.browser


@pytest.fixture(scope="session", params=["classic nodes", "Vue nodes"])
def renderer(request: pytest.FixtureRequest) -> str:
    """Which of the front end's two ways to draw nodes is on; pytest runs all tests with one, then with the other."""
    return request.param


@pytest.fixture(scope="module")
def lasting_front_end(workflow_server: ComfyServer, renderer: str) -> FrontEnd:
    """The front end in one page for all tests, loaded anew for each file."""
    return PAGES.front_end(workflow_server, renderer)


@pytest.fixture
def front_end(lasting_front_end: FrontEnd) -> FrontEnd:
    """The page that all tests of a file share, with an empty graph: one after the other, as a user opens workflows."""
    lasting_front_end.errors.clear()
    lasting_front_end.page.set_viewport_size({"width": 1600, "height": 1000})
    lasting_front_end.new_graph()
    return lasting_front_end


@pytest.fixture
def storyboard(front_end: FrontEnd) -> Storyboard:
    """The storyboard over the demo's workflow, with a story of three clips of which none is made."""
    return open_storyboard(front_end)
