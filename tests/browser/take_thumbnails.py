"""Make the pictures that the template browser shows: the graph as the front end draws it, on a card with its title.

    python -m tests.browser.take_thumbnails http://127.0.0.1:8188

The address is that of a running ComfyUI with this pack in it; the images that the workflows load should be in its input
folder.
"""

from __future__ import annotations

import base64
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.browser.front_end import CHROMIUM_ARGUMENTS, CHROMIUM_NAMES, SETTINGS, FrontEnd
from tests.e2e import shipped

SIDE = 512
QUALITY = 88
TEXTS = {  # workflow: (title, what it is, number of clips)
    "svi_2.0_pro_wan2.2_loop": ("SVI 2.0 Pro", "Wan 2.2 &middot; the loop in one node", 4),
    "svi_2.0_pro_wan2.2_unrolled": ("SVI 2.0 Pro", "Wan 2.2 &middot; unrolled, stock samplers", 2),
    "svi_2.0_pro_wan2.2_long_story": ("A long story", "SVI 2.0 Pro &middot; cuts, end image, plan, report", 8),
    "svi_2.0_pro_wan2.2_extend": ("Extend a video", "SVI 2.0 Pro &middot; its own frames unchanged", 3),
    "svi_2.0_pro_wan2.2_reroll": ("Redo one clip", "SVI 2.0 Pro &middot; the others are reused", 3),
    "svi_2.0_pro_wan2.2_processed": ("Upscaled clips", "SVI 2.0 Pro &middot; your nodes after each clip", 3),
    "svi_2.0_pro_wan2.2_story": ("A story", "SVI 2.0 Pro &middot; from a storyline, 5 steps", 3),
    "svi_2.0_wan2.2_loop": ("SVI 2.0", "Wan 2.2 &middot; one scene with much motion", 4),
    "svi_2.0_wan2.1_loop": ("SVI 2.0", "Wan 2.1 &middot; one scene, five motion frames", 4),
    "svi_film_wan2.1_loop": ("SVI-Film", "Wan 2.1 &middot; a story through several scenes", 4),
    "svi_shot_wan2.1_loop": ("SVI-Shot", "Wan 2.1 &middot; one scene, the loop in one node", 4),
    "svi_dance_wan2.1_loop": ("SVI-Dance", "Wan 2.1 &middot; a person who follows a pose video", 3),
    "svi_talk_wan2.1_loop": ("SVI-Talk", "Wan 2.1 &middot; lips that follow a speech", 3),
    "svi_tiny_demo": ("Tiny demo", "Bundled models &middot; runs on the CPU", 3),
}
COLOURS = ("#5b8ec0", "#6fae6f", "#d08a3e", "#9a7fd1")
GRAPH_BOX = """() => {
    const boxes = app.graph._groups.filter(group => group.title !== "Read me").map(group => [...group._bounding]);
    const [left, top] = [0, 1].map(axis => Math.min(...boxes.map(box => box[axis])));
    const [right, bottom] = [0, 1].map(axis => Math.max(...boxes.map(box => box[axis] + box[axis + 2])));
    const corner = app.canvas.ds.convertOffsetToCanvas([left, top]);
    const canvas = document.querySelector('#graph-canvas').getBoundingClientRect();
    const scale = app.canvas.ds.scale;
    return {x: canvas.x + corner[0], y: canvas.y + corner[1], width: (right - left) * scale, height: (bottom - top) * scale};
}"""
CARD = """<html><body style="margin:0;width:512px;height:512px;background:#15171c;color:#f2f3f5;overflow:hidden;
font-family:Inter,'DejaVu Sans',sans-serif;display:flex;flex-direction:column;justify-content:space-between">
<div style="padding:34px 32px 0"><div style="font-size:46px;font-weight:700;letter-spacing:-1px">{title}</div>
<div style="font-size:20px;color:#aab2bf;padding-top:6px">{subtitle}</div></div>
<img src="data:image/png;base64,{graph}" style="width:512px;max-height:262px;object-fit:cover;object-position:top">
<div style="position:relative;height:96px;margin:0 32px">{bars}</div></body></html>"""
BAR = """<div style="position:absolute;left:{left}px;top:{top}px;width:{width}px;height:26px;border-radius:7px;
background:{colour};opacity:.92;font-size:14px;line-height:26px;text-indent:10px;color:#10131a">clip {number}</div>"""


def graph_picture(browser: Browser, url: str, name: str) -> bytes:
    """Return a PNG of the graph of a workflow, without its notes."""
    front_end = FrontEnd(browser, url, width=2600, height=1500)
    for setting, value in {**SETTINGS, "Comfy.VueNodes.Enabled": False}.items():
        front_end.page.evaluate("([k, v]) => app.extensionManager.setting.set(k, v)", [setting, value])
    front_end.open_template(name)
    front_end.fit_view()
    picture = front_end.page.screenshot(clip=front_end.page.evaluate(GRAPH_BOX))
    front_end.close()
    return picture


def clip_bars(num_clips: int) -> str:
    """Return the clips as bars along time, each overlapping the one before."""
    width = (SIDE - 64) / (num_clips - 0.12 * (num_clips - 1))
    bars = []
    for index in range(num_clips):
        place = {"left": index * width * 0.88, "top": (index % 2) * 32, "width": width}
        bars.append(BAR.format(**place, colour=COLOURS[index % len(COLOURS)], number=index + 1))
    return "".join(bars)


def card(browser: Browser, name: str, graph: bytes) -> Image.Image:
    """Return the thumbnail of a workflow."""
    title, subtitle, num_clips = TEXTS[name]
    encoded = base64.b64encode(graph).decode()
    page = browser.new_page(viewport={"width": SIDE, "height": SIDE}, device_scale_factor=2)
    page.set_content(CARD.format(title=title, subtitle=subtitle, graph=encoded, bars=clip_bars(num_clips)))
    picture = Image.open(io.BytesIO(page.screenshot()))
    page.close()
    return picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main(url: str) -> None:
    """Write the thumbnail of every workflow."""
    chromium = next(path for name in CHROMIUM_NAMES if (path := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_ARGUMENTS)
        for name in shipped.NAMES:
            path = Path(shipped.FOLDER / f"{name}.jpg")
            card(browser, name, graph_picture(browser, url, name)).save(path, quality=QUALITY, optimize=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
