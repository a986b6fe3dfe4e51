"""A real Chromium, and ComfyUI's real front end in it."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from comfyui.server import ComfyServer
from tests.browser.front_end import CHROMIUM_ARGUMENTS, CHROMIUM_NAMES, SETTINGS, FrontEnd
from tests.browser.storyboard import Storyboard, open_storyboard


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium; without one the browser tests are skipped.

    It ends with the module, because asyncio.run() fails in a process where Playwright's own event loop is open.
    """
    found = next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(CHROMIUM_NAMES)}): apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, headless=True, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["classic nodes", "Vue nodes"])
def renderer(request: pytest.FixtureRequest) -> str:
    """Which of the front end's two ways to draw nodes is on; pytest runs a file's tests with one, then with the other."""
    return request.param


@pytest.fixture(scope="module")
def lasting_front_end(chromium: Browser, workflow_server: ComfyServer, renderer: str) -> Iterator[FrontEnd]:
    """The front end in one page for all tests of a file: to open it takes longer than most of them."""
    workflow_server.post_json("/settings", SETTINGS | {"Comfy.VueNodes.Enabled": renderer == "Vue nodes"})
    opened = FrontEnd(chromium, workflow_server.url)
    yield opened
    opened.close()


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
