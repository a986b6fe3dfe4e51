"""The whole way of the batch command on tiny models: tables, twelve stories of six benchmarks, two kills, and the report."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from batch.records import OutputFolder
from comfyui.server import ComfyServer
from svi_core.video.frame_times import count_frames
from tests.conftest import REPOSITORY
from tests.e2e.benchmark_stories import WORKFLOW, num_frames, write_table

pytestmark = [pytest.mark.browser, pytest.mark.e2e, pytest.mark.slow]


def run_batch(*arguments: object, kill_at: int = 0, folder: Path | None = None) -> int:
    """Run the command; kill it once `kill_at` videos are in `folder` and the server has the next story."""
    line = [sys.executable, "-m", "batch", *map(str, arguments)]
    with subprocess.Popen(line, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as command:
        while kill_at and command.poll() is None:
            logs = [path.read_text() for path in (folder / "stories").glob("*/log.txt")]
            states = [log.splitlines()[-1] for log in logs if log.endswith("\n")]
            if sum("done in" in state for state in states) >= kill_at and any("queued on" in state for state in states):
                command.kill()
            time.sleep(0.02)
        _, told = command.communicate()
    print(told)  # noqa: T201 - shown if the test fails
    return command.returncode


def test_twelve_stories_killed_twice_and_their_report(
    chromium: Browser, workflow_server: ComfyServer, reference_image: Path, tmp_path: Path
):
    table, names = write_table(workflow_server, reference_image, tmp_path)
    videos = tmp_path / "videos"
    line = ["run", table, "--workflow", WORKFLOW, "--output", videos]
    line += ["--server", workflow_server.url]
    assert run_batch(*line, kill_at=3, folder=videos) == -9
    assert run_batch(*line, kill_at=7, folder=videos) == -9
    assert run_batch(*line) == 0
    frames = {path.stem: count_frames(path) for path in videos.glob("*.mp4")}
    assert frames == {name: num_frames(name) for name in names}
    assert {OutputFolder(videos).record(name).attempts for name in names} == {1}, "nothing is queued twice"

    assert run_batch("score", videos) == 0
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto((videos / "scores" / "report.html").as_uri())
    page.screenshot(path=tmp_path / "report.png", full_page=True)
    assert page.locator("article img").count() == 12
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    told = page.locator("body").inner_text()
    assert all(name in told for name in names) and not errors
    page.close()
