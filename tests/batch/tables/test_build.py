"""A table from a folder of images: the paper's counts, prompts by the engine or a language model, and `run` reads it."""

import json
import re
import threading
import wave
from pathlib import Path

import pytest

from batch import make_table
from batch.arguments import command_line
from batch.table import read_table
from batch.tables import language_model
from batch.tables.kept_prompts import KeptPrompts
from svi_core.schedule.text import parse_schedule
from tests.batch.fake_comfyui import FakeComfyUI
from tests.batch.fake_ray import until
from tests.batch.tables.fake_language_model import FakeLanguageModel
from tests.conftest import draw_reference


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("young woman.png", "red fox.png", "old boat.png"):
        draw_reference(folder / name)
    (folder / "red fox.txt").write_text("a red fox\nkind: animal\nstyle: watercolour\n")
    return folder


def make(images: Path, benchmark: str, *more: str) -> list[dict]:
    table = images.parent / f"{benchmark}.jsonl"
    assert make_table.main(command_line().parse_args(["table", benchmark, str(images), "--output", str(table), *more])) == 0
    stories, problems = read_table(table)
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    assert not problems and [story.name for story in stories] == [row["name"] for row in rows]
    return rows


def prompts(row: dict) -> list[str]:
    return [paragraph.spec.prompt for paragraph in parse_schedule(row["prompts"]).paragraphs]


def sound(path: Path, seconds: float) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(round(16000 * seconds)))


@pytest.mark.parametrize(
    "benchmark, num_rows, num_clips, num_prompts",
    [
        ("consistent-50s", 152, 10, 1),
        ("consistent-250s", 14, 50, 1),
        ("creative-50s", 152, 10, 10),
        ("creative-250s", 14, 50, 50),
        ("production", 14, 3, 3),
    ],
)
def test_a_table_has_the_papers_counts(images, benchmark, num_rows, num_clips, num_prompts):
    rows = make(images, benchmark)
    assert len(rows) == num_rows and {row["clips"] for row in rows} == {num_clips}
    assert {len(prompts(row)) for row in rows} == {num_prompts}
    assert len({row["seed"] for row in rows}) == num_rows
    assert {Path(row["image"]).name for row in rows} == {"young woman.png", "red fox.png", "old boat.png"}


def test_stories_are_about_what_the_image_shows_and_the_same_each_time(images):
    rows = make(images, "creative-50s", "--samples", "4", "--seed", "5")
    assert [row["name"] for row in rows] == [
        "creative-50s-001-old-boat",
        "creative-50s-002-red-fox",
        "creative-50s-003-young-woman",
        "creative-50s-004-old-boat",
    ]
    assert [row["seed"] for row in rows] == [5, 6, 7, 8]
    assert all("red fox" in prompt and "Watercolour." in prompt for prompt in prompts(rows[1]))
    assert rows[0]["prompts"] != rows[3]["prompts"]  # the same image tells another story
    assert rows == make(images, "creative-50s", "--samples", "4", "--seed", "5")


def test_production_has_fourteen_different_cases(images, capsys):
    rows = make(images, "production")
    assert (
        len({row["name"].split("-", 2)[2] for row in rows}) == len({row["prompts"].split("\n\n", 1)[1] for row in rows}) == 14
    )
    assert not any("{" in row["prompts"] for row in rows)
    assert make(images, "production", "--clips", "2", "--samples", "1")[0]["clips"] == 2
    assert "production.jsonl: 1 story of 2 clips\n" in capsys.readouterr().err


@pytest.mark.parametrize("benchmark, column, suffix", [("talk-300s", "sound", ".wav"), ("dance-50s", "pose", ".mp4")])
def test_what_clips_follow_must_be_there(images, capsys, benchmark, column, suffix):
    options = command_line().parse_args(["table", benchmark, str(images), "--output", str(images / "t.jsonl")])
    assert make_table.main(options) == 2 and not (images / "t.jsonl").exists()
    assert f"old boat.png has no {column} beside it: put one of old boat{suffix}" in capsys.readouterr().err


def test_a_sound_that_is_too_short_is_named_with_its_length(images, capsys):
    for image in images.glob("*.png"):
        sound(image.with_suffix(".wav"), 300 if image.stem != "red fox" else 12)
    options = command_line().parse_args(["table", "talk-300s", str(images), "--output", str(images / "t.jsonl")])
    assert make_table.main(options) == 2
    assert "red fox.wav lasts 12.0 s and 300 s are needed" in capsys.readouterr().err
    rows = make(images, "talk-300s", "--clips", "2")
    assert len(rows) == 10 and rows[1]["sound"] == str(images / "red fox.wav") and rows[1]["clips"] == 2
    sound(images / "red fox.wav", 298)  # the last clip may be shorter
    assert {row["clips"] for row in make(images, "talk-300s")} == {94}
    sound(images / "red fox.wav", 297.6)  # 93 clips show 297.64 s
    assert make_table.main(options) == 2 and "lasts 297.6 s and 300 s are needed" in capsys.readouterr().err


def test_a_language_model_writes_the_prompts(images, capsys, monkeypatch):
    monkeypatch.setattr(language_model, "WAIT_SECONDS", 0.0)
    good = "Here you are:\n" + "\n".join(f"{n}. The red fox, the boat and the woman do thing {n}." for n in range(1, 4))
    with FakeLanguageModel("no list", good) as server:
        rows = make(images, "creative-50s", "--samples", "2", "--clips", "3", "--llm", server.url, "--llm-model", "tiny")
    assert [prompt.rsplit(" ", 1)[1] for prompt in prompts(rows[0])] == ["1.", "2.", "3."]
    assert all("do thing" in prompt for row in rows for prompt in prompts(row))
    assert len(server.asked) == 3 and server.asked[0]["seed"] != server.asked[1]["seed"]
    assert "Subject: a red fox" in server.asked[2]["messages"][0]["content"]
    assert "2 of 2: creative-50s-002-red-fox" in capsys.readouterr().err


def test_prompts_that_were_written_before_a_failure_are_not_asked_for_again(images, capsys, monkeypatch):
    monkeypatch.setattr(language_model, "WAIT_SECONDS", 0.0)
    good = "\n".join(f"{n}. The red fox, the boat and the woman do thing {n}." for n in range(1, 4))
    table = images.parent / "creative-50s.jsonl"
    line = ["table", "creative-50s", str(images), "--output", str(table), "--samples", "3", "--clips", "3"]
    with FakeLanguageModel(good, good, 400) as server:
        model = ["--llm", server.url, "--llm-model", "tiny"]
        assert make_table.main(command_line().parse_args([*line, *model])) == 2 and not table.exists()
        assert "the prompts of 2 stories are kept: the same command goes on" in capsys.readouterr().err
        kept = table.with_name("creative-50s.jsonl.prompts.jsonl")
        kept.write_bytes(kept.read_bytes()[:-5])  # and then it was killed
        server.replies[:] = [good.replace("do", "see")]
        rows = make(images, *line[1:2], *line[5:], *model)
        assert len(server.asked) == 5 and not kept.exists()
    assert ["see thing" in row["prompts"] for row in rows] == [False, True, True]


def test_text_nodes_of_comfyui_write_the_prompts(images, tmp_path, capsys):
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
        "2": {"class_type": "TextGenerate", "inputs": {"prompt": "Be brief. {instruction}", "sampling_mode.seed": 1}},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    }
    answers = iter(["no list", *["\n".join(f"{n}. The red fox, the boat and the woman do thing {n}." for n in (1, 2))] * 2])

    class TextComfyUI(FakeComfyUI):
        def end(self, key: str, outcome: str, graph: dict) -> None:
            super().end(key, "no video", graph)
            self.history[key]["outputs"] = {"3": {"text": [next(answers)] if outcome == "ok" else []}}

    file = tmp_path / "writer.json"
    file.write_text(json.dumps(graph))
    with TextComfyUI() as server:
        line = ["--samples", "2", "--clips", "2", "--llm", server.url, "--llm-workflow", str(file)]
        rows = make(images, "creative-50s", *line)
        asked = [graph["2"]["inputs"] for graph in server.queued]
        assert [graph["1"]["inputs"]["image"] in server.uploads for graph in server.queued] == [True] * 3
        assert [inputs["sampling_mode.seed"] for inputs in asked] == [0, 1, 1], (
            "another one after an answer that cannot be read"
        )
        assert all(inputs["prompt"].startswith("Be brief. ") and "{" not in inputs["prompt"] for inputs in asked)
        assert "a red fox" in asked[2]["prompt"]
        server.outcome = lambda _: "empty"
        arguments = command_line().parse_args(
            ["table", "creative-50s", str(images), "--output", str(tmp_path / "t.jsonl"), *line]
        )
        assert make_table.main(arguments) == 2
        assert "writer.json shows no text: link Preview as Text" in capsys.readouterr().err
        file.write_text(json.dumps(graph).replace("{instruction}", "Hello"))
        assert make_table.main(arguments) == 2
        assert "writer.json holds no {instruction}: write it where" in capsys.readouterr().err
    file.write_text(json.dumps(graph))
    assert make_table.main(arguments) == 2
    assert f"no ComfyUI answers at {server.url}" in capsys.readouterr().err
    assert all("do thing" in prompt for row in rows for prompt in prompts(row))


@pytest.mark.parametrize(
    ("benchmark", "more", "said"),
    [
        (
            "creative-50s",
            ["--llm", "http://127.0.0.1:9", "--llm-workflow", "w.json", "--llm-sees-images"],
            "if it has Load Image",
        ),
        ("creative-50s", ["--llm-sees-images"], "--llm-sees-images needs --llm-model"),
        (
            "production",
            ["--llm", "http://127.0.0.1:9/v1", "--llm-model", "m"],
            "production are written already: leave --llm out",
        ),
    ],
)
def test_options_that_would_change_nothing_are_refused(images, tmp_path, capsys, benchmark, more, said):
    line = ["table", benchmark, str(images), "--output", str(tmp_path / "t.jsonl"), *more]
    assert make_table.main(command_line().parse_args(line)) == 2 and not (tmp_path / "t.jsonl").exists()
    (told,) = capsys.readouterr().err.splitlines()
    assert said in told


WRITER = {
    "2": {"class_type": "TextGenerate", "inputs": {"prompt": "{instruction}"}},
    "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
}


@pytest.mark.parametrize(("outcome", "message"), [("crash", "has forgotten the story"), ("hang", "refused|closed|reset")])
def test_a_comfyui_that_dies_while_it_writes_is_named_at_once(images, tmp_path, capsys, outcome, message):
    file = tmp_path / "writer.json"
    file.write_text(json.dumps(WRITER))
    with FakeComfyUI(lambda _: outcome) as server:
        line = ["table", "creative-50s", str(images), "--output", str(tmp_path / "t.jsonl"), "--llm", server.url]
        killer = threading.Thread(target=lambda: (until(lambda: server.queued), outcome == "hang" and server.kill()))
        killer.start()
        assert make_table.main(command_line().parse_args([*line, "--llm-workflow", str(file)])) == 2
        killer.join()
    told = capsys.readouterr().err
    assert f"writer.json on {server.url}: " in told and re.search(message, told)


def test_an_edited_workflow_is_asked_anew(images, tmp_path):
    """One that fails after its first answer, is edited, and goes on."""
    text = "\n".join(f"{n}. The red fox, the boat and the woman do thing {n}." for n in (1, 2))

    class TextComfyUI(FakeComfyUI):
        def end(self, key: str, outcome: str, graph: dict) -> None:
            super().end(key, outcome if outcome == "error" else "no video", graph)
            self.history[key]["outputs"] = {"3": {"text": [text]}}

    file = tmp_path / "writer.json"
    with TextComfyUI() as server:
        server.outcome = lambda _: "error" if len(server.queued) == 2 else "ok"
        line = ["table", "creative-50s", str(images), "--output", str(tmp_path / "t.jsonl"), "--samples", "2", "--clips", "2"]
        options = command_line().parse_args([*line, "--llm", server.url, "--llm-workflow", str(file)])
        file.write_text(json.dumps(WRITER))
        assert make_table.main(options) == 2 and len(server.queued) == 2
        file.write_text(json.dumps(WRITER).replace("{instruction}", "Be brief. {instruction}"))
        assert make_table.main(options) == 0
    assert ["Be brief" in graph["2"]["inputs"]["prompt"] for graph in server.queued] == [False, False, True, True]


def test_kept_prompts_outlive_any_cut_and_any_letter(tmp_path):
    prompts = ("a fox\u2028sits\x85down", "a fóx")
    kept = KeptPrompts(tmp_path / "t.jsonl")
    kept.keep("one", prompts)
    kept.keep("two", ("é",))
    content = kept.path.read_bytes()
    kept.path.write_bytes(content[: content.rindex("é".encode()) + 1])  # inside of a letter
    again = KeptPrompts(tmp_path / "t.jsonl")
    assert again.get("one") == prompts and again.get("two") is None
    again.keep("two", ("é",))
    assert KeptPrompts(tmp_path / "t.jsonl").get("two") == ("é",)


def test_a_model_that_cannot_write_a_list_is_named(images, capsys):
    with FakeLanguageModel("no list") as server:
        arguments = ["table", "creative-50s", str(images), "--output", str(images / "t.jsonl"), "--llm", server.url]
        assert make_table.main(command_line().parse_args(arguments)) == 2
        assert "--llm needs --llm-model, or for a ComfyUI --llm-workflow" in capsys.readouterr().err
        assert make_table.main(command_line().parse_args([*arguments, "--llm-model", "tiny"])) == 2
    assert (
        "tiny was asked 3 times, and wrote 1 of 10 prompts (it begins 'no list'): use another model" in capsys.readouterr().err
    )
