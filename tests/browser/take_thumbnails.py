"""Make the pictures that the template browser shows: frames of a result, below the template's title.

    python -m tests.browser.take_thumbnails VIDEO

VIDEO is one that a template of three clips made. The full-size models do not run where these are taken, so it is the
demo's, as `make demo` leaves it. Each row of the picture is a clip.
"""

from __future__ import annotations

import base64
import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import av
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.browser.front_end import CHROMIUM_ARGUMENTS, CHROMIUM_NAMES
from tests.e2e import shipped

SIDE = 512
QUALITY = 88
ROWS, COLUMNS = 3, 3
TEXTS = {  # template: (title, what it is)
    "1 Long video from one image": ("Long video from one image", "Start here &middot; SVI 2.0 Pro, Wan 2.2"),
    "2 Long story with cuts": ("Long story with cuts", "Cuts, an end image, a plan, a report"),
    "3 Story from a subject": ("Story from a subject", "Prompts written for you, 5 steps"),
    "4 Continue a video": ("Continue a video", "Its own frames stay unchanged"),
    "5 Redo one clip": ("Redo one clip", "Finished clips before it are reused"),
    "6 Upscale each clip": ("Upscale each clip", "Your nodes work on each finished clip"),
    "SVI 2.0 - one scene with much motion": ("SVI 2.0", "Wan 2.2 &middot; one scene with much motion"),
    "SVI Dance - follow a pose video": ("SVI Dance", "Wan 2.1 &middot; a person follows a pose video"),
    "SVI Film - several scenes": ("SVI Film", "Wan 2.1 &middot; a story through several scenes"),
    "SVI Shot - one scene of any length": ("SVI Shot", "Wan 2.1 &middot; one scene of any length"),
    "SVI Talk - speak a sound file": ("SVI Talk", "Wan 2.1 &middot; a person speaks a sound file"),
    "Unfolded 2.0 Pro": ("2.0 Pro, unfolded", "Wan 2.2 &middot; every node on the page"),
    "Unfolded 2.0 on Wan 2.1": ("2.0, unfolded", "Wan 2.1 &middot; every node on the page"),
    "Unfolded 2.0 on Wan 2.2": ("2.0, unfolded", "Wan 2.2 &middot; every node on the page"),
    "Unfolded Dance": ("Dance, unfolded", "Wan 2.1 &middot; every node on the page"),
    "Unfolded Film": ("Film, unfolded", "Wan 2.1 &middot; every node on the page"),
    "Unfolded Shot": ("Shot, unfolded", "Wan 2.1 &middot; every node on the page"),
    "Unfolded Talk": ("Talk, unfolded", "Wan 2.1 &middot; every node on the page"),
    "Unrolled into stock samplers": ("Unrolled", "2.0 Pro &middot; building blocks, stock samplers"),
}
CARD = """<html><body style="margin:0;width:512px;height:512px;background:#15171c;color:#f2f3f5;overflow:hidden;
font-family:Inter,'DejaVu Sans',sans-serif"><div style="padding:30px 28px 26px">
<div style="font-size:31px;font-weight:700;letter-spacing:-1px;white-space:nowrap">{title}</div>
<div style="font-size:19px;color:#aab2bf;padding-top:6px;white-space:nowrap">{subtitle}</div></div>
<div style="display:grid;grid-template-columns:repeat(3,1fr);gap:4px;padding:0 4px">{frames}</div>
<div style="font-size:13px;color:#7f8794;padding:8px 28px 0">Frames of the demo, made by its tiny models</div></body></html>"""
FRAME = '<img src="data:image/png;base64,{frame}" style="width:100%;height:112px;object-fit:cover;display:block">'


def result_frames(video: Path) -> list[Image.Image]:
    """Return frames of a video at equal distances, row by row."""
    with av.open(str(video)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    number = ROWS * COLUMNS
    return [frames[round((index + 0.5) / number * (len(frames) - 1))] for index in range(number)]


def card(browser: Browser, name: str, frames: Sequence[Image.Image]) -> Image.Image:
    """Return the thumbnail of a template."""
    title, subtitle = TEXTS[name]
    page = browser.new_page(viewport={"width": SIDE, "height": SIDE}, device_scale_factor=2)
    page.set_content(CARD.format(title=title, subtitle=subtitle, frames="".join(map(_as_html, frames))))
    picture = Image.open(io.BytesIO(page.screenshot()))
    page.close()
    return picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _as_html(frame: Image.Image) -> str:
    content = io.BytesIO()
    frame.save(content, "PNG")
    return FRAME.format(frame=base64.b64encode(content.getvalue()).decode())


def main(video: str) -> None:
    """Write the thumbnail of every template."""
    chromium = next(path for name in CHROMIUM_NAMES if (path := shutil.which(name)))
    frames = result_frames(Path(video))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_ARGUMENTS)
        for name in shipped.TEMPLATES:
            card(browser, name, frames).save(shipped.FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
