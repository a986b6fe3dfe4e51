"""The report of scored videos in a real Chromium: the first sight, the check list, its file, and no request to anywhere."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from batch import score
from batch.arguments import command_line
from tests.batch.scored_videos import moving, save

pytestmark = pytest.mark.browser

CASES = ("production-001-turn", "production-002-walk", "production-003-still")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("consistent-50s-001-cat", *CASES)):
        save(tmp_path / f"{name}.mp4", moving(number, 31))
    return tmp_path


def scored(folder: Path, *more: object) -> Path:
    assert score.main(command_line().parse_args(["score", str(folder), "--clip-length", "8", *map(str, more)])) == 0
    return folder / "scores" / "report.html"


def test_people_look_judge_and_save(chromium: Browser, folder: Path, capsys):
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    errors: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    report = scored(folder)
    page.goto(report.as_uri())
    strips = page.locator("article img")
    box = strips.first.bounding_box()
    assert strips.count() == 4 and box and box["y"] + box["height"] < 450 and box["width"] > 1300
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "3 cases to judge" in page.locator("#rate").inner_text()

    for name in CASES[:2]:
        for question in ("identity", "style", "seam", "prompt"):
            fails = (name, question) == (CASES[1], "seam")
            field = page.locator(f'[data-case="{name}"] [data-question="{question}"]')
            field.locator("button[value=no]" if fails else "button[value=yes]").click()
    assert "1 of 2 judged cases passed: 50% (1 to judge)" in page.locator("#rate").inner_text()
    assert page.locator(".result").all_inner_texts() == ["passed", "not passed", ""]
    with page.expect_download() as download:
        page.get_by_role("button", name="Save check list").click()
    assert download.value.suggested_filename == "check_list.json"
    download.value.save_as(folder / "check_list.json")
    page.close()
    assert not errors and [url for url in asked if not url.startswith(("data:", "blob:"))] == [report.as_uri()]

    capsys.readouterr()
    scored(folder)
    assert "50% of 2 judged cases passed; published for 14 cases: 64%" in capsys.readouterr().err
    assert json.loads((folder / "scores" / "scores.json").read_text())["videos"][CASES[1]]["answers"]["seam"] is False
    page = chromium.new_page(viewport={"width": 700, "height": 900})
    page.goto(report.as_uri())
    assert "1 of 2 judged cases passed" in page.locator("#rate").inner_text()  # what was said is shown again
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()
