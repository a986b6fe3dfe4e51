"""A newcomer's first video: the first template of five nodes, from a typo to the finished video, and one file of it."""

import re

import pytest

from svi_core.video.frame_times import count_frames
from tests.e2e import shipped

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

CLASSIC_FIRST = pytest.mark.parametrize(
    "renderer", ["classic nodes", pytest.param("Vue nodes", marks=pytest.mark.slow)], indirect=True
)
RUN_MS = 300_000
TYPO = "[seede 3]\n"
PLAYING = """name => [...document.querySelectorAll('video')].some(video =>
    video.currentSrc.includes(name) && video.offsetWidth > 200 && video.readyState >= 2)"""


@pytest.fixture
def template(front_end, renderer, tmp_path):
    """A function that opens the first template on a screen of 1440 x 900, as small as tiny models need, in a folder."""

    def open_first(folder, steps=2):
        front_end.page.set_viewport_size({"width": 1440, "height": 900})
        front_end.open_template(shipped.FIRST)
        front_end.settle()
        front_end.page.locator(".svi-text.svi_lint:visible").get_by_text("3 clips").wait_for()
        front_end.page.screenshot(path=tmp_path / "1 opened.png")
        front_end.set_inner_widgets(shipped.SMALL | {"BasicScheduler": {"steps": steps}})
        for name, value in (shipped.SMALL["SVIAnchorEncode"] | {"filename_prefix": folder}).items():
            front_end.set_folded_widget(name, value)

    return open_first


def videos_of(server, folder):
    """Return the finished videos of a run."""
    return sorted(path.name for path in (server.output_directory / folder).glob("video-*.mp4"))


def numbered_copies(server):
    """Return what Save Video and its like have written, in this and in other tests."""
    return set(server.output_directory.rglob("*_0000?_*"))


@CLASSIC_FIRST
def test_a_typo_a_cancelled_run_and_the_finished_video(front_end, comfy_server, template, renderer, tmp_path):
    folder = f"newcomer/{renderer.split()[0]}"
    template(folder, steps=150)
    page, copies = front_end.page, numbered_copies(comfy_server)
    boxes = page.locator("textarea")
    box = boxes.nth(boxes.evaluate_all("all => all.findIndex(box => box.value.startsWith('A young woman'))"))
    text = box.input_value()
    box.fill(TYPO + text)
    page.locator(".svi-text.svi_lint:visible").get_by_text("option 'seede 3' is not known").wait_for()
    page.screenshot(path=tmp_path / "2 typo.png")
    page.get_by_test_id("queue-button").click()
    front_end.toast("option 'seede 3'").wait_for()
    page.screenshot(path=tmp_path / "3 refused.png")
    box.fill(text)
    lint = page.locator(".svi-text.svi_lint:visible")
    lint.get_by_text("3 clips").wait_for()
    front_end.toast("option 'seede 3'").wait_for(state="detached")  # it is mended
    assert lint.evaluate("element => element.offsetHeight") < 60 < box.evaluate("element => element.offsetHeight") / 4
    front_end.run()
    page.get_by_text("Clip 1 of 3: sampling, step").filter(visible=True).first.wait_for(timeout=RUN_MS)
    page.screenshot(path=tmp_path / "4 running.png")  # takes seconds on a busy machine
    page.get_by_text("Clip 2 of 3: sampling, step").filter(visible=True).first.wait_for(timeout=RUN_MS)
    page.evaluate("() => app.api.interrupt(null)")
    front_end.toast(re.compile("[12] of 3 clips kept")).wait_for()  # 2: a slow page
    page.screenshot(path=tmp_path / "5 cancelled.png")
    front_end.set_inner_widgets({"BasicScheduler": {"steps": 2}})
    page.evaluate("() => { window.sviStarted = false }")
    front_end.run()
    page.evaluate("() => app.canvas.deselectAll()")  # the view is fitted to what is selected
    video = front_end.shown_video(60_000)
    page.screenshot(path=tmp_path / "6 finished.png")
    (finished,) = videos_of(comfy_server, folder)
    assert finished in video["source"] and "type=output" in video["source"]
    assert count_frames(comfy_server.output_directory / folder / finished) == shipped.NUM_FRAMES[shipped.FIRST]
    front_end.enter_app_mode()
    page.wait_for_function(PLAYING, arg=finished)
    page.screenshot(path=tmp_path / "7 app mode.png")
    front_end.leave_app_mode()
    front_end.set_folded_widget("seed", 7)
    for _ in range(2):  # the second run makes nothing
        page.evaluate("() => { window.sviStarted = false; window.sviEnded = false }")
        page.evaluate("() => app.api.addEventListener('execution_success', () => { window.sviEnded = true })")
        front_end.run()
        page.wait_for_function("window.sviEnded", timeout=RUN_MS)
    assert len(videos_of(comfy_server, folder)) == 2 and finished in videos_of(comfy_server, folder)
    assert numbered_copies(comfy_server) == copies
    assert front_end.errors == []
