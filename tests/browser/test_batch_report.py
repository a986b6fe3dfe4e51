"""The whole way of the batch command on tiny models: tables, twelve stories of six benchmarks, two kills, and the report."""

import json
import shutil
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
from tests.e2e.tiny_talk_models import WAN21_TALK

pytestmark = [pytest.mark.browser, pytest.mark.e2e, pytest.mark.slow]

WORKFLOW_OF = {  # as in the paper: Shot is consistent, Film creative
    "consistent-50s": "Unfolded Shot",
    "consistent-250s": "Unfolded Shot",
    "creative-50s": "Unfolded Film",
    "creative-250s": "Unfolded Film",
    "talk-300s": "Unfolded Talk",
    "dance-50s": "Unfolded Dance",
}
SMALL = {"SVI Anchor Encode.width": 64, "SVI Anchor Encode.height": 64, "SVI Layout.num_frames": 13, "BasicScheduler.steps": 2}
FRAMES = {"consistent": 2 * 12 + 1, "creative": 2 * 8 + 5, "talk": 2 * 12 + 1, "dance": 20}


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


@pytest.fixture
def table(workflow_server: ComfyServer, reference_image: Path, tmp_path: Path) -> Path:
    """Two stories of each benchmark, of two clips."""
    photos, inputs = tmp_path / "photos", workflow_server.base_directory / "input"
    photos.mkdir()
    for name in ("young_woman", "old_man"):
        for source, suffix in ((reference_image, ".png"), (inputs / "speech.wav", ".wav"), (inputs / "pose.mp4", ".mp4")):
            shutil.copyfile(source, photos / f"{name}{suffix}")
    rows = []
    for benchmark, name in WORKFLOW_OF.items():
        file = tmp_path / f"{benchmark}.jsonl"
        assert run_batch("table", benchmark, photos, "--output", file, "--samples", 2, "--clips", 2) == 0
        extra = SMALL | {"workflow": str(REPOSITORY / "workflows" / f"{name}.json")}
        if name == "Unfolded Talk":
            extra["Load Diffusion Model.unet_name"] = WAN21_TALK
        rows += [json.loads(line) | extra for line in file.read_text().splitlines()]
    stories = tmp_path / "stories.jsonl"
    stories.write_text("\n".join(json.dumps(row) for row in rows))
    return stories


def test_twelve_stories_killed_twice_and_their_report(chromium: Browser, workflow_server: ComfyServer, table: Path):
    videos = table.parent / "videos"
    line = ["run", table, "--workflow", REPOSITORY / "workflows" / "Unfolded Shot.json", "--output", videos]
    line += ["--server", workflow_server.url]
    assert run_batch(*line, kill_at=3, folder=videos) == -9
    assert run_batch(*line, kill_at=7, folder=videos) == -9
    assert run_batch(*line) == 0
    frames = {path.stem: count_frames(path) for path in videos.glob("*.mp4")}
    names = [json.loads(row)["name"] for row in table.read_text().splitlines()]
    assert frames == {name: FRAMES[name.split("-")[0]] for name in names} and len(names) == 12
    assert {OutputFolder(videos).record(name).attempts for name in names} == {1}, "nothing is queued twice"

    assert run_batch("score", videos) == 0
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto((videos / "scores" / "report.html").as_uri())
    page.screenshot(path=table.parent / "report.png", full_page=True)
    assert page.locator("article img").count() == 12
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    told = page.locator("body").inner_text()
    assert all(name in told for name in names) and not errors
    page.close()
