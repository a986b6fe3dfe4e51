"""The clip panel in ComfyUI's own front end: clips seen while the next is made, kept, re-rolled, and there again later."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from comfyui.server import ComfyServer
from svi_core.store.finished_clips import FinishedClip, note_finished
from svi_core.store.keep_marks import kept_keys
from svi_core.video.video_file import VideoCoding, write_video
from tests.browser.front_end import READY, FrontEnd
from tests.e2e import shipped

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

ONCE = pytest.mark.parametrize("renderer", ["classic nodes"], indirect=True)
CLASSIC_FIRST = pytest.mark.parametrize(
    "renderer", ["classic nodes", pytest.param("Vue nodes", marks=pytest.mark.slow)], indirect=True
)
RUN_MS = 300_000
STORY = """the red boat on the blue sea sails to the right.

# a prompt is text, whatever it looks like
the boat <img src=x onerror="window.sviHacked = true"> at night.

day breaks."""
GENERATE = "app.graph._nodes.find(node => node.type === 'SVIGenerate')"
TEXT = "app.graph._nodes.find(n => n.type === 'SVIPromptStream')?.widgets.find(w => w.name === 'text').value"
WATCH = """node => {
    window.sviSeen = {played: [], previews: 0, done: false};
    window.sviStarted = false;
    app.api.addEventListener('execution_success', () => { window.sviSeen.done = true });
    window.sviWatch ??= setInterval(() => {
        const video = document.querySelector('.svi-clips-stage video');
        if (window.sviSeen.done) return;
        if (video?.readyState >= 2 && !video.paused && video.currentTime > 0) window.sviSeen.played.push(video.currentSrc);
        const pictures = [...(NODE.imgs ?? []), ...document.querySelectorAll('.lg-node img')];
        if (pictures.some(image => image.src.startsWith('blob:') && image.naturalWidth > 0)) window.sviSeen.previews++;
    }, 20);
}""".replace("NODE", GENERATE)


class Panel:
    """The panel as a user meets it."""

    def __init__(self, front_end: FrontEnd):
        self.front_end = front_end
        self.page = front_end.page
        self.tiles = self.page.locator(".svi-clips-tile")
        self.keep = self.page.locator(".svi-clips").get_by_role("button", name="Protect")
        self.reroll = self.page.locator(".svi-clips").get_by_role("button", name="Re-roll")
        self.facts = self.page.locator(".svi-clips-facts")
        self.prompt = self.page.locator(".svi-clips-prompt")
        self.notice = self.page.locator(".svi-clips-notice")

    def tile(self, number: int):
        return self.page.get_by_role("option", name=f"Clip {number},")

    def wait_for_clips(self, number: int) -> None:
        self.page.wait_for_function(f"document.querySelectorAll('.svi-clips-tile').length === {number}", timeout=RUN_MS)

    def run_to_the_end(self, num_clips: int) -> None:
        self.page.evaluate(WATCH)
        self.front_end.run()
        self.page.wait_for_function("window.sviSeen.done", timeout=RUN_MS)
        self.wait_for_clips(num_clips)

    def text(self) -> str:
        return self.page.evaluate(TEXT)


@pytest.fixture
def panel(front_end: FrontEnd) -> Panel:
    """The demo's workflow, made small."""
    front_end.open_template(shipped.DEMO)
    for node_type, values in shipped.small_widgets(front_end.api_graph()).items():
        front_end.set_widgets(node_type, values)
    front_end.set_widgets("SVIPromptStream", {"text": STORY})
    return Panel(front_end)


def clips_on_disk(server: ComfyServer, run: str) -> list[dict]:
    return json.loads((server.output_directory / run / "run.json").read_text())["clips"]


@CLASSIC_FIRST
def test_clips_are_seen_kept_rerolled_and_there_again(panel, front_end, comfy_server, renderer, tmp_path):
    run = f"browser/panel {renderer.split()[0]}"
    front_end.set_widgets("SVIGenerate", {"filename_prefix": run})
    front_end.set_widgets("BasicScheduler", {"steps": 6})  # time to look on
    before = generate_inputs(front_end)
    panel.run_to_the_end(3)
    seen = panel.page.evaluate("window.sviSeen")
    assert seen["played"], "no finished clip played while the next was made"
    assert seen["previews"], "the sampler's own preview is gone"
    assert all("type=output" in source and "clips&" in source for source in seen["played"])
    assert_nothing_is_saved(front_end, before)
    front_end.screenshot(tmp_path / "run.png")

    first = clips_on_disk(comfy_server, run)
    assert_prompts_are_text(panel)
    keep_first_clip(panel, comfy_server.output_directory / run, first)
    reroll_second_clip(panel)
    panel.run_to_the_end(3)
    second = clips_on_disk(comfy_server, run)
    assert [old["key"] == new["key"] for old, new in zip(first, second, strict=True)] == [True, False, False]
    assert f"[seed {second[1]['seed']}]" in panel.text() and second[2]["seed"] == first[2]["seed"]
    assert "reused" in panel.tile(1).get_attribute("aria-label")
    assert "reused" not in panel.tile(2).get_attribute("aria-label")
    front_end.screenshot(tmp_path / "rerolled.png")

    reload_and_load_again(panel)
    panel.wait_for_clips(3)
    labels = [panel.tile(number).get_attribute("aria-label") for number in (1, 2, 3)]
    assert (
        "reused, protected on disk" in labels[0]
        and f"seed {second[1]['seed']}" in labels[1]
        and labels[2].endswith("day breaks.")
    )
    assert_prompts_are_text(panel)
    front_end.screenshot(tmp_path / "reloaded.png")
    assert front_end.errors == []


def generate_inputs(front_end: FrontEnd) -> dict:
    """Return what is queued of SVI Generate."""
    return next(node["inputs"] for node in front_end.api_graph().values() if node["class_type"] == "SVIGenerate")


def assert_nothing_is_saved(front_end: FrontEnd, before: dict) -> None:
    """Check that the panel is a widget of the node, and neither in the prompt nor in the saved workflow."""
    names, saved = front_end.page.evaluate(
        f"() => [{GENERATE}.widgets.map(widget => widget.name), {GENERATE}.serialize().widgets_values]"
    )
    values = next(node for node in shipped.read(shipped.DEMO)["nodes"] if node["type"] == "SVIGenerate")["widgets_values"]
    assert "svi_clips" in names and len(saved) == len(values)
    assert generate_inputs(front_end) == before


def assert_prompts_are_text(panel: Panel) -> None:
    panel.tile(2).click()
    assert "<img src=x onerror=" in panel.prompt.inner_text()
    assert panel.page.evaluate("[window.sviHacked, document.querySelectorAll('.svi-clips img').length]") == [None, 0]


def keep_first_clip(panel: Panel, folder: Path, clips: list[dict]) -> None:
    """Choose clip 1, see it play, mark it, and find the mark on disk; and the same back and forth again."""
    panel.front_end.fit_view()
    panel.tile(1).click()
    source = "document.querySelector('.svi-clips-stage video').currentSrc"
    panel.page.wait_for_function(f"{source}.includes('{clips[0]['key']}')")
    panel.page.wait_for_function("(v => v.readyState >= 2 && !v.paused)(document.querySelector('.svi-clips-stage video'))")
    for kept in (True, False, True):
        panel.keep.click()
        panel.page.wait_for_function(f"document.querySelector('.svi-clips [aria-pressed={str(kept).lower()}]')")
        assert kept_keys(folder) == ({clips[0]["key"]} if kept else set())


def reroll_second_clip(panel: Panel) -> None:
    panel.tile(2).click()
    panel.reroll.click()
    panel.notice.get_by_text("Press Run; earlier clips are reused.").wait_for()
    seed = panel.notice.inner_text().split("seed ")[1].split()[0]
    old, new = "the boat <img", f"[seed {seed}]\nthe boat <img"
    assert panel.text() == STORY.replace(old, new)


def reload_and_load_again(panel: Panel) -> None:
    """Reload the page and load the graph as it was."""
    workflow = panel.page.evaluate("() => app.graph.serialize()")
    panel.page.reload()
    panel.page.wait_for_function(READY)
    panel.front_end.new_graph()
    panel.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)


def write_run(folder: Path, num_clips: int, playable: bool = False) -> None:
    """List clips without making them: what the panel does with them does not depend on that."""
    clip = FinishedClip(0, "", "a prompt", 0, 76, 90.0, False, "")
    (folder / "clips").mkdir(parents=True)
    for index in range(num_clips):
        key = f"{index:064x}"
        clip = replace(clip, index=index, key=key, prompt=f"clip number {index}", segment=f"{key}-5-81.mp4")
        note_finished(folder, clip)
        if playable:
            write_video(folder / "clips" / clip.segment, [np.full((24, 64, 96, 3), 90, np.uint8)], VideoCoding())


@pytest.mark.slow
def test_a_thousand_clips_are_as_light_as_ten(panel, front_end, comfy_server, renderer, tmp_path):
    run = f"browser/long {renderer.split()[0]}"
    write_run(comfy_server.output_directory / run, 1000)
    front_end.set_widgets("SVIGenerate", {"filename_prefix": run})
    panel.tile(1000).wait_for()
    front_end.fit_view()
    panel.notice.get_by_text("Clip 1000 cannot be played").wait_for()
    keys = {"Home": 1, "ArrowRight": 2, "ArrowLeft": 1, "End": 1000, "PageUp": None, " ": None}
    panel.tile(1000).click()
    for key, number in keys.items():
        panel.page.keyboard.press(key)
        chosen = panel.page.locator(".svi-clips-tile:focus")
        assert chosen.get_attribute("aria-selected") == "true" and chosen.get_attribute("tabindex") == "0"
        assert number in (None, int(chosen.get_attribute("aria-posinset")))
        assert panel.tiles.count() < 30
    assert 900 < int(chosen.get_attribute("aria-posinset")) < 1000
    assert panel.page.locator(".svi-clips-tile[tabindex='0']").count() == 1
    front_end.screenshot(tmp_path / "long.png")
    assert front_end.errors == []


@ONCE
def test_keyboard_reaches_every_control(panel, front_end, comfy_server, renderer):
    run = "browser/keyboard"
    write_run(comfy_server.output_directory / run, 3, playable=True)
    front_end.set_widgets("SVIGenerate", {"filename_prefix": run})
    panel.tile(3).wait_for()
    front_end.fit_view()
    panel.tile(3).click()
    reached = []
    for _ in range(3):
        panel.page.keyboard.press("Shift+Tab")
        reached.append(panel.page.evaluate("document.activeElement.textContent || document.activeElement.tagName"))
    assert "Re-roll" in reached[0] and "Protect on disk" in reached[1] and reached[2] == "VIDEO"


def test_a_reroll_is_undone_as_any_edit(panel, front_end, comfy_server, renderer):
    run = f"browser/undo {renderer.split()[0]}"
    write_run(comfy_server.output_directory / run, 3, playable=True)
    front_end.set_widgets("SVIGenerate", {"filename_prefix": run})
    panel.tile(3).wait_for()
    front_end.fit_view()
    panel.reroll.click()
    panel.notice.get_by_text("Clip 3 now has seed").wait_for()
    assert "\n\n[seed " in panel.text()
    panel.page.keyboard.press("Control+z")
    panel.page.wait_for_function(f"() => ({TEXT}) === {json.dumps(STORY)}")
    panel.wait_for_clips(3)
    assert front_end.errors == []


@ONCE
def test_a_clip_that_is_gone_and_a_schedule_that_cannot_be_written_are_told(panel, front_end, comfy_server, renderer):
    run = "browser/gone"
    write_run(comfy_server.output_directory / run, 3)
    front_end.set_widgets("SVIGenerate", {"filename_prefix": run})
    panel.tile(3).wait_for()
    front_end.fit_view()
    panel.keep.click()
    panel.notice.get_by_text("there is no clip '000").wait_for()
    front_end.set_widgets("SVIPromptStream", {"text": "[sed 7]\na"})
    panel.reroll.click()
    panel.notice.get_by_text("line 1, column 2: option 'sed 7' is not known").wait_for()
    front_end.set_widgets("SVIPromptStream", {"text": "a\nb", "split": "lines"})
    panel.reroll.click()
    panel.notice.get_by_text("takes no options").wait_for()
    assert panel.text() == "a\nb"
    panel.page.evaluate(f"() => {GENERATE}.disconnectInput('prompts')")
    panel.reroll.click()
    panel.notice.get_by_text("does not come directly from SVI Prompt Stream").wait_for()


@ONCE
def test_another_name_shows_another_run_and_a_bad_name_none(panel, front_end, comfy_server, renderer):
    for name, num_clips in (("browser/two", 2), ("browser/five", 5)):
        write_run(comfy_server.output_directory / name, num_clips)
        front_end.set_widgets("SVIGenerate", {"filename_prefix": name})
        panel.wait_for_clips(num_clips)
    for name in ("../outside", "browser/none"):
        front_end.set_widgets("SVIGenerate", {"filename_prefix": name})
        panel.wait_for_clips(0)
        panel.notice.get_by_text("No finished clips").wait_for()
        front_end.set_widgets("SVIGenerate", {"filename_prefix": "browser/two"})
        panel.wait_for_clips(2)
    assert front_end.errors == []


@ONCE
def test_a_linked_name_is_learnt_from_the_run(panel, front_end, comfy_server, renderer):
    """What a link will give is not known in the browser, so the node remembers the folder that its last run told."""
    write_run(comfy_server.output_directory / "browser/linked", 3)
    panel.page.evaluate(
        f"""() => {{
            const [generate, name] = [{GENERATE}, LiteGraph.createNode('PrimitiveString')];
            app.graph.add(name);
            name.connect(0, generate, generate.inputs.findIndex(input => input.name === 'filename_prefix'));
            const tell = (node, run) => app.api.dispatchEvent(new CustomEvent('svi.clip', {{detail: {{node, run}}}}));
            tell(String(generate.id + 1), 'browser/two');
            tell(String(generate.id), 'browser/linked');
        }}"""
    )
    panel.wait_for_clips(3)
    workflow = panel.page.evaluate("() => app.graph.serialize()")
    front_end.new_graph()
    panel.wait_for_clips(0)
    panel.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)  # all that a reload keeps
    panel.wait_for_clips(3)
    assert front_end.errors == []


@ONCE
def test_removed_nodes_leave_nothing_behind(panel, front_end, comfy_server, renderer):
    write_run(comfy_server.output_directory / "browser/removed", 3)
    front_end.set_widgets("SVIGenerate", {"filename_prefix": "browser/removed"})
    panel.wait_for_clips(3)
    panel.page.evaluate(f"() => app.graph.remove({GENERATE})")
    panel.page.wait_for_function("document.querySelectorAll('.svi-clips').length === 0")
    assert front_end.errors == []
