"""Take the pictures of docs/ and of the help pages: the storyboard as a newcomer makes it, and what nodes say of that story.

    python -m tests.browser.take_storyboard [FOLDER]

The demo's models make a story of five clips with a cut, and one clip again, in about five minutes. FOLDER also gets a picture
of each step.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from comfyui.server import ComfyServer
from dev.environment import REPOSITORY, find_environment
from svi_core.look.drift import measure_drift
from svi_core.look.drift_plot import draw_drift
from svi_core.store.records import read_manifest
from svi_core.video.video_file import read_frames
from tests.browser.front_end import CHROMIUM_ARGUMENTS, CHROMIUM_NAMES, SETTINGS, FrontEnd
from tests.browser.storyboard import Storyboard
from tests.e2e import shipped
from tests.e2e.graphs import node

DOCS = REPOSITORY / "docs" / "images" / "storyboard.jpg"
HELP = REPOSITORY / "web" / "docs" / "images"
BOAT = "the red boat on the blue sea "
ADDED = [BOAT + "sails to the left.", BOAT + "stays still. night falls."]
RUN_MS = 600_000
WIDTH = 640  # px of a picture for a help page


class Walk:
    """The steps of a newcomer, each with its picture."""

    def __init__(self, front_end: FrontEnd, folder: Path | None):
        self.board = Storyboard(front_end)
        self.page = front_end.page
        self.folder = folder

    def note(self, name: str) -> None:
        if self.folder:
            self.page.screenshot(path=self.folder / f"{name}.png")

    def make_five_clips(self) -> None:
        """Open the storyboard, add two clips and a cut, and run."""
        self.page.keyboard.press("Alt+s")
        self.board.card(3).wait_for()
        self.note("1 opened")
        for number, prompt in enumerate(ADDED, start=4):
            self.page.get_by_role("button", name="+ Clip").click()
            self.page.wait_for_function("document.activeElement.value === 'Describe this clip.'")
            self.page.keyboard.type(prompt)
            self.page.keyboard.press("Enter")
            self.board.card(number).wait_for()
        self.board.item(4).locator(".svi-seam-kind").click()
        self.page.get_by_role("button", name="Make 5 clips").wait_for()
        self.note("2 written")
        self.page.get_by_role("button", name="Make 5 clips").click()
        self.page.locator(".svi-card[data-state='making']").wait_for(timeout=RUN_MS)
        self.note("3 making")
        self.wait_for("ready ready ready ready ready")
        self.note("4 made")

    def make_one_again(self) -> None:
        """Re-roll clip 2 and wait until clip 3 follows it: a picture with every state but "planned"."""
        self.board.card(2).get_by_role("button", name="Re-roll").click()
        self.wait_for("ready ready making ready ready", "ready ready making outdated outdated")
        self.page.wait_for_function(
            "document.querySelector('.svi-card[data-state=making] .svi-card-state').textContent.includes('step')"
        )
        self.page.mouse.move(700, 100)

    def wait_for(self, *states: str) -> None:
        shown = "[...document.querySelectorAll('.svi-card')].map(card => card.dataset.state).join(' ')"
        self.page.wait_for_function(f"all => all.includes({shown})", arg=list(states), timeout=RUN_MS)


def _picture(page, clip) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


def _save_for_help(picture: Image.Image, name: str) -> None:
    """Store a picture at twice the width of ComfyUI's help panel, at most."""
    HELP.mkdir(exist_ok=True)
    size = (WIDTH, round(picture.height * WIDTH / picture.width))
    picture.resize(size, Image.Resampling.LANCZOS).save(HELP / f"{name}.webp", quality=80, method=6)


def _plan_of(server: ComfyServer, graph: dict[str, Any]) -> Image.Image:
    """Return SVI Plan's picture of a graph."""
    (loop,) = shipped.nodes_of(graph, "SVIGenerate")
    graph = graph | {"plan": node("SVIPlan", video=[loop, 0], plan_only=True)}
    graph["shown"] = node("SaveImage", images=["plan", 2], filename_prefix="plan")
    for key in [key for key, facts in graph.items() if facts["class_type"] in shipped.PLAYERS]:
        del graph[key]
    server.run(graph)
    (file,) = server.output_directory.glob("plan_*.png")
    return Image.open(file).convert("RGB")


def _drift_of(server: ComfyServer) -> Image.Image:
    """Return the picture of SVI Drift Report for the newest video."""
    video = max(server.output_directory.glob("stories/red boat/video-*.mp4"), key=lambda path: path.stat().st_mtime)
    report = measure_drift(read_frames(video), [clip.num_frames for clip in read_manifest(video)])
    return Image.fromarray(draw_drift(report))


def main(folder: str | None = None) -> None:
    """Write the pictures."""
    environment = find_environment(["test"])
    assert environment is not None, "set the environment up: python -m tests"
    chromium = next(path for name in CHROMIUM_NAMES if (path := shutil.which(name)))
    models = [REPOSITORY / "demo" / "models"]
    with (
        tempfile.TemporaryDirectory() as base,
        sync_playwright() as playwright,
        ComfyServer(environment, Path(base), model_roots=models, arguments=["--preview-method", "latent2rgb"]) as server,
    ):
        server.add_input(REPOSITORY / "demo" / "images" / "boat.png")
        server.post_json("/settings", SETTINGS)
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_ARGUMENTS)
        front_end = FrontEnd(browser, server.url, 1440, 900)
        front_end.open_template(shipped.DEMO)
        front_end.set_widgets("SVIGenerate", {"filename_prefix": "stories/red boat"})
        walk = Walk(front_end, Path(folder) if folder else None)
        walk.make_five_clips()
        walk.make_one_again()
        board = front_end.page.locator(".svi-board").bounding_box()
        _picture(front_end.page, board).save(DOCS, quality=88, optimize=True)
        _save_for_help(_picture(front_end.page, {**board, "width": 3 * 248 + 30}), "storyboard")
        _save_for_help(_plan_of(server, front_end.api_graph()), "plan")
        walk.wait_for("ready ready ready ready ready")
        walk.note("5 made again")
        _save_for_help(_drift_of(server), "drift_report")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
