"""The page: complete in itself, filmstrips first, published numbers marked, nothing of a user's text becomes HTML."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from batch.report.charts import chart
from batch.report.page import page
from batch.scoring.check_list import QUESTIONS, CheckList
from batch.scoring.look import VideoLook
from batch.scoring.published import DANCE, PUBLISHED, TALK, VBENCH
from batch.scoring.sample import Sample
from batch.scoring.scores import Scores
from batch.tables.benchmarks import BENCHMARKS, benchmark_of

EVIL = '<script>alert("x")</script>'


def look(reasons: tuple[str, ...] = (), num_clips: int = 3) -> VideoLook:
    clip = {"sharpness": -2.0, "contrast": 0.2, "motion": 0.01}
    clips = [clip | {"seam": None if index == 0 else 1.5} for index in range(num_clips)]
    report = {"clips": clips, "colour_distance": [0.01 * k for k in range(num_clips)], "reasons": reasons, "notes": ()}
    return VideoLook(report, b"jpeg", (400, 40), 10)


def scores(*names: str, invalid: tuple[str, ...] = ()) -> Scores:
    found = Scores(absent={"subject_consistency": f"no {EVIL}", "Sync-C": "no SyncNet"})
    for name in names:
        lengths = (3,) * (benchmark_of(name).num_clips or 3)
        found.samples.append(Sample(name, Path(f"{name}.mp4"), f"sha of {name}", (f"prompt of {name} {EVIL}",), lengths))
        found.looks[name] = look(("static",) if name in invalid else ())
        if name not in invalid:
            found.values[name] = found.looks[name].summary()
        found.sets[benchmark_of(name).name] = {"aesthetic_quality": 0.6384, "colour drift": 0.02}
    return found


def html(found: Scores) -> str:
    return page(found, "Scores", "today", "..").decode()


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_loads_nothing():
    tags = Tags(html(scores("consistent-50s-001-cat", "production-001-turn"))).tags
    sources = [value for tag, given in tags for key, value in given.items() if key in ("src", "srcset", "data", "action")]
    assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not [tag for tag, _ in tags if tag in ("link", "iframe", "object", "embed", "base")]
    policy = next(given["content"] for tag, given in tags if given.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:")


def test_filmstrips_come_first():
    text = html(scores("consistent-50s-001-cat", "production-001-turn"))
    assert text.index("<img") < text.index("<table") < text.index("<svg")
    assert text.count("<img") == 2 and 'href="../production-001-turn.mp4"' in text


def test_text_of_users_never_becomes_html():
    found = scores(f"{EVIL}-cat", f"production-{EVIL}")
    found.unscored["bad"] = EVIL
    text = html(found)
    assert "alert(" in text and EVIL not in text
    assert len([tag for tag, _ in Tags(text).tags if tag == "script"]) == 2


def test_published_rows_are_marked_and_complete():
    text = html(scores(*(f"{name}-001-cat" for name in PUBLISHED)))
    rows = re.findall(r'<tr class="published"><th>(.*?) <i>published</i></th>(.*?)</tr>', text)
    assert len(rows) == sum(len(published) for _, _, published in PUBLISHED.values())
    assert dict(rows)["SVI-Talk"].startswith("<td>6.12</td><td>8.74</td><td>390</td>")
    assert ("SVI-Shot", "<td>98.13</td><td>98.19</td><td>63.84</td><td>71.88</td><td>17.61</td><td>98.93</td>") in [
        (method, cells[: cells.index("<td></td>")]) for method, cells in rows
    ]
    for head, body in re.findall(r"<thead><tr>(.*?)</tr></thead><tbody>(.*?)</tbody>", text):
        assert {row.count("<td") for row in body.split("<tr")[1:]} == {head.count("<th>") - 1}


def test_no_published_rows_stand_beside_shorter_videos():
    found = scores("dance-50s-001-cat", "dance-50s-002-dog")
    assert html(found).count('class="published"') == 3
    found.samples[1] = replace(found.samples[1], clip_lengths=(3, 3))
    text = html(found)
    assert 'class="published"' not in text and "UniAnimate" not in text
    assert "No published rows: the paper's videos are as long as 16 clips, and 1 of 2 here has fewer." in text


def test_findings_of_a_valid_video_are_on_its_card():
    found = scores("my own", "my other", invalid=("my other",))
    for name, shown in found.looks.items():
        found.looks[name] = replace(shown, report=shown.report | {"notes": ("clip 2 stands still <",)})
    text = html(found)
    assert text.count('<ul class="findings"><li>clip 2 stands still &lt;</li></ul>') == 1
    assert "findings" in text[text.index('data-name="my own"') : text.index('data-name="my other"')]


def test_names_are_quoted_in_links_and_one_is_singular():
    found = scores("50 % #1?")
    found.samples[0] = replace(found.samples[0], clip_lengths=(9,))
    found.looks["50 % #1?"] = look(num_clips=1)
    found.values["50 % #1?"] = found.looks["50 % #1?"].summary()
    text = html(found)
    assert 'href="../50%20%25%20%231%3F.mp4"' in text and "1 video, none INVALID" in text and "<span>1 clip</span>" in text


def test_a_mean_of_fewer_videos_says_of_how_many():
    found = scores("consistent-50s-001-cat", "consistent-50s-002-dog")
    found.counts["consistent-50s"] = {"aesthetic_quality": 1, "colour drift": 2}
    text = html(found)
    assert '<td>63.84 <small title="over 1 of 2 videos">n = 1</small></td>' in text and "<td>0.02</td>" in text


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_row_has_a_number_for_each_metric(name):
    _, metrics, published = PUBLISHED[name]
    assert name in BENCHMARKS and metrics in (VBENCH, TALK, DANCE)
    assert {len(values) for values in published.values()} == {len(metrics)}


def test_what_is_absent_says_so_in_its_cell_and_below():
    text = html(scores("consistent-50s-001-cat"))
    assert '<td class="absent" title="no &lt;script&gt;' in text and "<td>63.84</td>" in text
    assert "<h3>Not measured</h3><ul><li><b>subject consistency</b>: no &lt;script&gt;" in text and "SyncNet" not in text


def test_an_invalid_video_shows_its_strip_and_no_number():
    text = html(scores("consistent-50s-001-cat", "consistent-50s-002-dog", invalid=("consistent-50s-002-dog",)))
    card = text[text.index('<article data-name="consistent-50s-002-dog">') :].split("</article>")[0]
    assert "INVALID: static" in card and "<img" in card and "drift" not in card
    assert "this folder, 1 video (the paper: 152), 1 INVALID left out" in text


def test_check_lists_are_for_all_but_the_papers_videos():
    found = scores("consistent-50s-001-cat", "production-001-turn", "my own")
    found.checks = CheckList({"my own": {"seam": False}}, ("old",))
    text = html(found)
    assert text.count('class="checks"') == 2 and text.count("<fieldset") == 2 * len(QUESTIONS)
    assert '"my own": {"sha256": "sha of my own", "answers": {"seam": false}}' in text
    assert "old: the video has changed since it was judged" in text
    assert 'id="save"' not in html(scores("consistent-50s-001-cat"))


def test_a_chart_draws_each_video_and_the_mean():
    drawn = chart("seam <1>", [[None, 1.0, 2.0], [None, 3.0]], 3.0)
    assert drawn.count('class="one"') == 2 and drawn.count('class="mean"') == 1 and drawn.count('class="limit"') == 1
    assert "seam &lt;1&gt;" in drawn and ">3<" in drawn
    (mean,) = re.findall(r'class="mean" d="(.*?)"', drawn)
    height = {float(y) for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", mean)}
    assert len(re.findall("[ML]", mean)) == 2 and len(height) == 1  # (1 + 3) / 2, then 2 alone
    assert chart("nothing", [[None, None]]) == ""


def test_a_far_limit_is_left_out_and_a_lone_point_is_a_dot():
    drawn = chart("seam", [[None, 1.0, None]], 3.0)
    assert "limit" not in drawn and "m-2 0a2 2 0 1 0 4 0a2 2 0 1 0 -4 0" in drawn and 'class="one"' not in drawn
